"""All shards under one path as one long table of rows."""

import collections
import itertools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.records import SequenceRows, StaticMasks, Vocabulary
from bert_pytorch.shards.layouts import EVAL_PREFIX, UNFINISHED, is_held_out
from bert_pytorch.shards.manifest import read_manifest
from bert_pytorch.shards.shard_file import Header, OpenShard, read_header
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_TEXT, read_vocabulary, vocabulary_sha256

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
        self._source = source
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

    def describe(self) -> str:
        """Say in one line what this set is."""
        words = "no vocabulary beside it"
        if self.vocabulary is not None:
            casing = "lowercase" if self.vocabulary.lowercase else "cased"
            words = f"{casing} vocabulary of {len(self.vocabulary.tokens):,}"
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
            InputError: if an id has no token in the vocabulary.
        """
        indices = np.asarray(indices, np.int64)
        owners = np.searchsorted(self._ends, indices, side="right")
        order = np.argsort(owners, kind="stable")
        parts = []
        for shard, group in itertools.groupby(order, key=lambda place: int(owners[place])):
            start = self._ends[shard] - self._headers[shard].num_rows
            parts.append(self._checked(self._shard(shard).rows(indices[np.fromiter(group, np.int64)] - start), shard))
        gathered = parts[0] if len(parts) == 1 else _concatenate(parts, self)
        return _reorder(gathered, order) if len(parts) > 1 else gathered

    def close(self) -> None:
        """Forget all mappings; the next read opens them again."""
        self._open.clear()

    def _shard(self, index: int) -> OpenShard:
        with self._lock:  # the loader's threads read rows side by side
            if index not in self._open:
                while len(self._open) >= OPEN_SHARDS:
                    self._open.popitem(last=False)
                self._open[index] = OpenShard(self._headers[index])
            self._open.move_to_end(index)
            return self._open[index]

    def _checked(self, rows: SequenceRows, shard: int) -> SequenceRows:
        if self.vocabulary is not None and rows.input_ids.size:
            largest, size = int(rows.input_ids.max()), len(self.vocabulary.tokens)
            if largest >= size or int(rows.input_ids.min()) < 0:
                raise InputError(
                    f"{self._headers[shard].path}: found token id {largest}, but the vocabulary has {size} tokens. "
                    "These shards were made with another vocabulary; name theirs with --vocab_file."
                )
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
        raise InputError(f"{path}: there is no such file or folder. Check the spelling of the path.")
    files = (file for file in path.rglob("*.hdf5") if file.is_file() and not file.name.startswith("."))
    chosen = [file for file in files if is_held_out(file.name) == (split == "eval")]
    return sorted(chosen, key=_natural_order)


def open_shards(path: Path, split: Split = "train", vocabulary: Vocabulary | None = None) -> ShardSet:
    """Open all shards of one part under a path; files are read later, when rows are asked for.

    Args:
        path: a file, or a folder searched recursively for `*.hdf5`.
        split: `eval` takes the held-out shards (`eval_*`, NVIDIA's `*_test_*`), `train` all others.
        vocabulary: used instead of the one beside the shards.

    Raises:
        InputError: if there are none, one is damaged, or they do not belong together.
    """
    paths = find_shards(path, split)
    if not paths:
        raise InputError(_nothing_found(path, split))
    headers = [read_header(file) for file in paths]
    _refuse_mixture(path, headers)
    folders = sorted({header.path.parent for header in headers})
    for folder in folders:
        _check_manifest(folder, [header for header in headers if header.path.parent == folder], path, split)
    vocabulary = vocabulary or _vocabulary_beside(path, folders)
    if vocabulary is not None:
        _check_vocabulary(headers, vocabulary)
    return ShardSet(headers, vocabulary, path)


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


def _vocabulary_beside(path: Path, folders: list[Path]) -> Vocabulary | None:
    """Look in each folder of shards, then upwards to the given path's parent; all finds must agree."""
    found: dict[Path, Vocabulary] = {}
    top = (path if path.is_dir() else path.parent).resolve()
    for folder in folders:
        for place in [folder, *folder.resolve().parents]:
            if any((place / name).is_file() for name in (TOKENIZER_JSON, VOCABULARY_TEXT)):
                manifest = read_manifest(folder)
                own = (place / TOKENIZER_JSON).is_file() or manifest is None
                found[place] = read_vocabulary(place, None if own or manifest is None else manifest.lowercase)
                break
            if place.resolve() == top.parent:
                break
    if len(set(found.values())) > 1:
        raise InputError(f"{path}: shards of more than one vocabulary: {', '.join(map(str, found))}. Name one folder.")
    return next(iter(found.values()), None)


def _check_vocabulary(headers: list[Header], vocabulary: Vocabulary) -> None:
    sha256 = vocabulary_sha256(vocabulary)
    for header in headers:
        written = header.attributes.get("vocabulary_sha256")
        if written is not None and written != sha256:
            raise InputError(
                f"{header.path}: it was made with another vocabulary (SHA-256 {written[:12]}…, found {sha256[:12]}…). "
                "Use the vocabulary beside the shards, or encode the text again."
            )
        if header.attributes.get("lowercase", vocabulary.lowercase) != vocabulary.lowercase:
            found, wanted = ("cased", "lowercase") if header.attributes["lowercase"] else ("lowercase", "cased")
            raise InputError(f"{header.path}: it holds {wanted} text, but the vocabulary is {found}.")


def _natural_order(path: Path) -> tuple[str, tuple[int, ...], str]:
    """Order `train_2` before `train_10`, folder by folder."""
    digits = "".join(letter if letter.isdigit() else " " for letter in path.name).split()
    return str(path.parent), tuple(int(number) for number in digits), path.name
