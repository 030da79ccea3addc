"""The corpora of a run as one: rows are numbered through over all of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.records import SequenceRows, Vocabulary


class RowSource(Protocol):
    """A set of sequences that can be read in any order: shards, or texts tokenized on the way."""

    vocabulary: Vocabulary | None

    @property
    def num_sequences(self) -> int:
        """Sequences in it."""

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence at most."""

    @property
    def has_next_sentence(self) -> bool:
        """Whether sequences are pairs with a next-sentence label."""

    @property
    def static(self) -> bool:
        """Whether masks were drawn when the set was written."""

    @property
    def shard_sizes(self) -> np.ndarray:
        """Sequences of each shard, int64 (num_shards,)."""

    @property
    def paths(self) -> Sequence[Path]:
        """File of each shard."""

    @property
    def excluded(self) -> frozenset[int]:
        """Numbers of shards that are left out."""

    def exclude(self, shards: Iterable[int]) -> None:
        """Leave more shards out."""

    def rows(self, indices: np.ndarray) -> SequenceRows:
        """Gather rows, int64 (n,) in any order."""

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of rows, int32 (n,)."""

    def owners(self, indices: np.ndarray) -> np.ndarray:
        """Return the shard of each row, int64 (n,)."""

    def expect(self, shards: Sequence[int]) -> None:
        """Say which shards are needed next, in this order."""

    def describe(self) -> str:
        """Say in one line what this set is."""

    def close(self) -> None:
        """Let go of open files."""


class Part(NamedTuple):
    """The samples of one corpus among some of several."""

    source: RowSource
    which: np.ndarray
    """int64 (k,), their places among those asked for."""
    indices: np.ndarray
    """int64 (k,), their rows in the corpus."""


class Corpora:
    """One corpus or several.

    Args:
        sources: at least one.
        names: what each was opened by, for messages.
    """

    def __init__(self, sources: Sequence[RowSource], names: Sequence[str]) -> None:
        self.sources = list(sources)
        self.names = list(names)
        sizes = np.asarray([source.num_sequences for source in sources], np.int64)
        self._starts = np.cumsum(sizes) - sizes
        _refuse_misfits(self.sources, self.names)

    @property
    def num_sequences(self) -> int:
        """Sequences of all corpora."""
        return int(self._starts[-1]) + self.sources[-1].num_sequences

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence at most."""
        return max(source.sequence_length for source in self.sources)

    @property
    def has_next_sentence(self) -> bool:
        """Whether sequences are pairs with a next-sentence label."""
        return self.sources[0].has_next_sentence

    @property
    def static(self) -> bool:
        """Whether all masks were drawn when the sets were written."""
        return all(source.static for source in self.sources)

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The one that was found beside the corpora."""
        return next((source.vocabulary for source in self.sources if source.vocabulary is not None), None)

    @property
    def starts(self) -> np.ndarray:
        """Number of each corpus's first sequence, int64."""
        return self._starts

    def parts(self, indices: np.ndarray) -> list[Part]:
        """Tell samples apart by corpus.

        Args:
            indices: int64 (n,), numbers over all corpora.
        """
        if len(self.sources) == 1:
            return [Part(self.sources[0], np.arange(len(indices)), indices)]
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        chosen = [(corpus, np.flatnonzero(owners == corpus)) for corpus in np.unique(owners)]
        return [Part(self.sources[corpus], which, indices[which] - self._starts[corpus]) for corpus, which in chosen]

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of samples, int32 (n,); 0 for those of shards that are left out."""
        found = np.zeros(len(indices), np.int32)
        for part in self.parts(indices):
            usable = _usable(part)
            if usable.any():
                found[part.which[usable]] = part.source.lengths(part.indices[usable])
        return found

    def usable(self, indices: np.ndarray) -> np.ndarray | None:
        """Tell which samples do not lie in a shard that is left out: bool (n,), or None where all are usable."""
        if not any(source.excluded for source in self.sources):
            return None
        found = np.ones(len(indices), bool)
        for part in self.parts(indices):
            found[part.which] = _usable(part)
        return found

    def excluded(self) -> list[str]:
        """Return the names of the shards that are left out: `{corpus}:{file}`, the same wherever the corpora lie."""
        return [
            self._name(corpus, source.paths[shard])
            for corpus, source in enumerate(self.sources)
            for shard in sorted(source.excluded)
        ]

    def exclude(self, shards: Iterable[str]) -> None:
        """Leave shards out by their names; names of none are passed over.

        Raises:
            InputError: if nothing is left.
        """
        names = set(shards)
        for corpus, source in enumerate(self.sources):
            if names:
                source.exclude([n for n, path in enumerate(source.paths) if self._name(corpus, path) in names])
        if all(len(source.excluded) == len(source.paths) for source in self.sources):
            raise InputError(f"{', '.join(self.names)}: every shard is damaged. Build the corpus again.")

    def name_of(self, path: Path) -> str | None:
        """Return the name of the shard whose file is at `path`; None if it is none of these."""
        owners = (corpus for corpus, source in enumerate(self.sources) if path in source.paths)
        return next((self._name(corpus, path) for corpus in owners), None)

    def sequences_of(self, shards: Iterable[str]) -> int:
        """Count the sequences of shards by their names."""
        names = set(shards)
        return sum(
            int(size)
            for corpus, source in enumerate(self.sources)
            for path, size in zip(source.paths, source.shard_sizes, strict=True)
            if self._name(corpus, path) in names
        )

    def _name(self, corpus: int, path: Path) -> str:
        root = Path(self.names[corpus])
        return f"{corpus}:{path.relative_to(root) if path.is_relative_to(root) and path != root else path.name}"

    def expect(self, shards: Sequence[int]) -> None:
        """Say which shards are needed next, in this order; numbered over all corpora."""
        ends = np.cumsum([len(source.shard_sizes) for source in self.sources])
        owners = np.searchsorted(ends, shards, side="right")
        for corpus, source in enumerate(self.sources):
            first = int(ends[corpus]) - len(source.shard_sizes)
            source.expect([shard - first for shard, owner in zip(shards, owners, strict=True) if owner == corpus])

    def close(self) -> None:
        """Let go of open files and end what fetches ahead."""
        for source in self.sources:
            source.close()

    def describe(self) -> list[str]:
        """Say of each corpus in one line what it is."""
        return [source.describe() for source in self.sources]


def _usable(part: Part) -> np.ndarray:
    """Tell which samples of a corpus do not lie in a shard that is left out: bool (k,)."""
    if not part.source.excluded:
        return np.ones(len(part.indices), bool)
    return ~np.isin(part.source.owners(part.indices), list(part.source.excluded))


def _refuse_misfits(sources: list[RowSource], names: list[str]) -> None:
    kinds = {name: "sentence pairs" if source.has_next_sentence else "single segments"
             for name, source in zip(names, sources, strict=True)}  # fmt: skip
    if len(set(kinds.values())) > 1:
        listing = "".join(f"\n  - {kind}: {name}" for name, kind in kinds.items())
        raise InputError(f"--input_dir: corpora of more than one task; keep those of one:{listing}")
    words = {name: source.vocabulary for name, source in zip(names, sources, strict=True) if source.vocabulary}
    if len(set(words.values())) > 1:
        listing = "".join(f"\n  - {vocabulary.describe()}: {name}" for name, vocabulary in words.items())
        raise InputError(
            f"--input_dir: corpora of more than one vocabulary; encode all with one (--vocab_file):{listing}"
        )
