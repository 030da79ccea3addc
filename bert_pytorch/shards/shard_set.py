"""All shards under one path as one long table of rows."""

import collections
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.records import SequenceRows, StaticMasks, Vocabulary
from bert_pytorch.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, cache_folder, limit_bytes, spare
from bert_pytorch.shards.layouts import EVAL_PREFIX, INPUT_IDS, MASKED_IDS, UNFINISHED, is_held_out
from bert_pytorch.shards.manifest import read_manifest
from bert_pytorch.shards.row_checks import refuse_misplaced, refuse_unknown_ids
from bert_pytorch.shards.shard_file import Header, OpenShard, read_header
from bert_pytorch.shards.vocabularies import refuse_other_vocabulary, vocabularies_beside

logger = logging.getLogger(__name__)

Split = Literal["train", "eval"]

OPEN_SHARDS = 64
"""Shards kept mapped at a time; each holds one file descriptor."""


class ShardSet:
    """Shards of one sequence length and layout, in the order of their names; rows are numbered through."""

    def __init__(self, headers: Sequence[Header], vocabulary: Vocabulary | None, source: Path) -> None:
        self._headers = list(headers)
        self._ends = np.cumsum([header.num_rows for header in headers], dtype=np.int64)
        self._open: collections.OrderedDict[int, OpenShard] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._cache_ready = False
        self._source = source
        self._excluded: frozenset[int] = frozenset()
        self.vocabulary = vocabulary
        """Tokens and casing found beside the shards; None for foreign shards without one."""

    @property
    def num_sequences(self) -> int:
        """Rows of all shards."""
        return int(self._ends[-1])

    @property
    def sequence_length(self) -> int:
        """Length L of every row, padding included."""
        return self._headers[0].sequence_length

    @property
    def has_next_sentence(self) -> bool:
        """Whether rows are sentence pairs with a next-sentence label."""
        return self._headers[0].next_sentence

    @property
    def static(self) -> bool:
        """Whether masks were drawn when the shards were written."""
        return self._headers[0].layout == "nvidia"

    @property
    def headers(self) -> list[Header]:
        """The shards, in order."""
        return self._headers

    @property
    def paths(self) -> list[Path]:
        """The shards' files, in order."""
        return [header.path for header in self._headers]

    @property
    def shard_sizes(self) -> np.ndarray:
        """Rows of each shard, int64 (num_shards,)."""
        return np.diff(self._ends, prepend=0)

    @property
    def excluded(self) -> frozenset[int]:
        """Numbers of shards that are left out of training: damaged ones."""
        return self._excluded

    def exclude(self, shards: Iterable[int]) -> None:
        """Leave more shards out."""
        self._excluded |= frozenset(shards)

    def owners(self, indices: np.ndarray) -> np.ndarray:
        """Return the shard of each row, int64 (n,)."""
        return np.searchsorted(self._ends, indices, side="right")

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of rows before the padding, int32 (n,)."""
        return self.rows(indices).lengths

    def describe(self) -> str:
        """Say in one line what this set is."""
        words = "no vocabulary beside it"
        if self.vocabulary is not None:
            words = f"vocabulary of {self.vocabulary.describe()}"
        return (
            f"{self._source}: {self.num_sequences:,} sequences of up to {self.sequence_length} tokens "
            f"({'sentence pairs' if self.has_next_sentence else 'single segments'}, "
            f"{'static' if self.static else 'dynamic'} masking, {words}) in {len(self._headers)} shard(s)"
        )

    def rows(self, indices: np.ndarray) -> SequenceRows:
        """Gather rows in the order asked for.

        Args:
            indices: int64 (n,), each in [0, num_sequences), in any order, repeats allowed.

        Raises:
            InputError: naming the file, if an id has no token in the vocabulary, or a length or masked position is not
                one of the row's.
            IndexError: if an index is not in the set.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.num_sequences):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of a set of {self.num_sequences}")
        owners = np.searchsorted(self._ends, indices, side="right")
        order = np.argsort(owners, kind="stable")
        cuts = np.flatnonzero(np.diff(owners[order])) + 1
        parts = []
        for group in np.split(order, cuts):
            shard = int(owners[group[0]]) if len(group) else 0
            start = self._ends[shard] - self._headers[shard].num_rows
            inside = indices[group] - start
            parts.append(self._checked(self._shard(shard).rows(inside), shard, inside))
        return parts[0] if len(parts) == 1 else _reorder(_concatenate(parts, self), order)

    def close(self) -> None:
        """Forget all mappings; the next read opens them again."""
        self._open.clear()

    def _shard(self, index: int) -> OpenShard:
        with self._lock:  # the loader's threads read rows side by side
            if index not in self._open:
                while len(self._open) >= OPEN_SHARDS:
                    self._open.popitem(last=False)
                if self._headers[index].offsets is None:
                    self._prepare_cache()
                self._open[index] = OpenShard(self._headers[index])
            self._open.move_to_end(index)
            return self._open[index]

    def _prepare_cache(self) -> None:
        if not self._cache_ready:
            self._cache_ready = True
            sizes = [header.flat_bytes for header in self._headers if header.offsets is None]
            spare(header.path for header in self._headers if header.offsets is None)
            logger.info(
                "%s: %d compressed shard(s) take %.2f GiB decompressed in %s, made once ($%s names another folder)",
                *(self._source, len(sizes), sum(sizes) / 2**30, cache_folder(), FOLDER_VARIABLE),
            )
            if sum(sizes) > limit_bytes():
                logger.warning("that is more than $%s: %.2f GiB", LIMIT_VARIABLE, limit_bytes() / 2**30)

    def _checked(self, rows: SequenceRows, shard: int, indices: np.ndarray) -> SequenceRows:
        path = self._headers[shard].path
        if self.vocabulary is not None:
            size = len(self.vocabulary.tokens)
            refuse_unknown_ids(path, INPUT_IDS, rows.input_ids, size)
            if rows.static_masks is not None:
                refuse_unknown_ids(path, MASKED_IDS, rows.static_masks.token_ids, size)
        refuse_misplaced(path, rows, indices)
        return rows


def _concatenate(parts: list[SequenceRows], shards: ShardSet) -> SequenceRows:
    def join(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    masks = None
    if shards.static:
        each = [part.static_masks for part in parts if part.static_masks is not None]
        slots = max(mask.positions.shape[1] for mask in each)
        masks = StaticMasks(
            np.concatenate([_widen(mask.positions, slots) for mask in each]),
            np.concatenate([_widen(mask.token_ids, slots) for mask in each]),
            np.concatenate([mask.counts for mask in each]),
        )
    labels = join("next_sentence_labels") if shards.has_next_sentence else None
    return SequenceRows(join("input_ids"), join("lengths"), join("segment_b_starts"), labels, masks)


def _widen(slots: np.ndarray, width: int) -> np.ndarray:
    return np.pad(slots, ((0, 0), (0, width - slots.shape[1])))


def _reorder(rows: SequenceRows, order: np.ndarray) -> SequenceRows:
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    masks = rows.static_masks
    return SequenceRows(
        rows.input_ids[back],
        rows.lengths[back],
        rows.segment_b_starts[back],
        None if rows.next_sentence_labels is None else rows.next_sentence_labels[back],
        None if masks is None else StaticMasks(masks.positions[back], masks.token_ids[back], masks.counts[back]),
    )


def find_shards(path: Path, split: Split = "train") -> list[Path]:
    """List the shards of one part under a file or folder, sorted; an empty list where there are none.

    Raises:
        InputError: if `path` does not exist.
    """
    if path.is_file():
        return [path] if split == "eval" or not is_held_out(path.name) else []
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such file or folder. Check the spelling of the path, or make "
            "shards: python -m bert_pytorch.corpus encode --input TEXT --output DIR"
        )
    files = (file for file in path.rglob("*.hdf5") if file.is_file() and not file.name.startswith("."))
    chosen = [file for file in files if is_held_out(file.name) == (split == "eval")]
    return sorted(chosen, key=_natural_order)


def open_shards(
    path: Path, split: Split = "train", vocabulary: Vocabulary | None = None, *, otherwise_lowercase: bool = True
) -> ShardSet:
    """Open all shards of one part under a path; files are read later, when rows are asked for.

    Args:
        path: a file, or a folder searched recursively for `*.hdf5`.
        split: `eval` takes the held-out shards (`eval_*`, NVIDIA's `*_test_*`), `train` all others.
        vocabulary: used instead of the one beside the shards.
        otherwise_lowercase: casing of a vocabulary beside the shards where no file says it: foreign ones are often a
            `vocab.txt` alone.

    Raises:
        InputError: if there are none, one is damaged, they do not belong together, or the vocabulary is not theirs.
    """
    paths = find_shards(path, split)
    if not paths:
        raise InputError(_nothing_found(path, split))
    headers = [read_header(file) for file in paths]
    _refuse_mixture(path, headers)
    folders = sorted({header.path.parent for header in headers})
    for folder in folders:
        _check_manifest(folder, [header for header in headers if header.path.parent == folder], path, split)
    if vocabulary is not None:
        refuse_other_vocabulary(headers, vocabulary, "the one given")
        return ShardSet(headers, vocabulary, path)
    beside = vocabularies_beside(path, headers, otherwise_lowercase)
    if len(set(beside.values())) > 1:
        raise InputError(f"{path}: shards of more than one vocabulary: {', '.join(map(str, beside))}. Name one folder.")
    for place, found in beside.items():
        refuse_other_vocabulary(headers, found, str(place))
    return ShardSet(headers, next(iter(beside.values()), None), path)


def _nothing_found(path: Path, split: Split) -> str:
    if split == "eval":
        return f"{path}: no held-out shard ({EVAL_PREFIX}*.hdf5 or *_test_*.hdf5) found. Name a set that has some."
    if find_shards(path, "eval"):
        return (
            f"{path}: only held-out shards ({EVAL_PREFIX}*, *_test_*) found; those are never trained on. Name others."
        )
    return f"{path}: no shard (*.hdf5) found. Make some: python -m bert_pytorch.corpus encode --input TEXT --output DIR"


def _refuse_mixture(path: Path, headers: list[Header]) -> None:
    kinds: dict[tuple[str, str], set[Path]] = collections.defaultdict(set)
    for header in headers:
        task = "sentence pairs" if header.next_sentence else "single segments"
        kinds["sequence length", str(header.sequence_length)].add(header.path.parent)
        kinds["layout", header.layout].add(header.path.parent)
        kinds["task", task].add(header.path.parent)
    for what in ("sequence length", "layout", "task"):
        found = {value: folders for (name, value), folders in kinds.items() if name == what}
        if len(found) > 1:
            listing = "".join(
                f"\n  - {value}: {folder}" for value, folders in sorted(found.items()) for folder in sorted(folders)
            )
            raise InputError(f"{path}: shards of more than one {what}; name one of the folders:{listing}")


def _check_manifest(folder: Path, headers: list[Header], path: Path, split: Split) -> None:
    if (folder / UNFINISHED).exists():
        raise InputError(
            f"{folder}: this set is not finished (it has {UNFINISHED}). Start its build again: it goes on where it was."
        )
    manifest = read_manifest(folder)
    if manifest is None:
        return
    rows = {record.name: record.rows for record in manifest.shards}
    for header in headers:
        if header.path.name in rows and rows[header.path.name] != header.num_rows:
            wanted = rows[header.path.name]
            raise InputError(f"{header.path}: {header.num_rows} rows, its manifest says {wanted}. Build the set again.")
    present = {header.path.name for header in headers}
    missing = [name for name in rows if is_held_out(name) == (split == "eval") and name not in present]
    if missing and path.is_dir():
        raise InputError(
            f"{folder}: {len(missing)} shard(s) of its manifest are missing: {', '.join(missing[:5])}. "
            "Start its build again: it makes what is missing."
        )


def _natural_order(path: Path) -> tuple[str, tuple[int, ...], str]:
    """Order `train_2` before `train_10`, folder by folder."""
    digits = "".join(letter if letter.isdigit() else " " for letter in path.name).split()
    return str(path.parent), tuple(int(number) for number in digits), path.name
