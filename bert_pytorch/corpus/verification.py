"""Checking a finished set: every file against the manifest, every row against its layout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import InputError
from bert_pytorch.files import sha256_of
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.layouts import COLUMNS, is_held_out
from bert_pytorch.shards.manifest import Manifest, read_manifest
from bert_pytorch.shards.shard_file import Header, OpenShard, read_header
from bert_pytorch.shards.shard_set import find_shards, open_shards
from bert_pytorch.vocabulary import vocabulary_sha256

_ROWS_AT_ONCE = 4096


class VerifyConfig(Settings):
    """Check sets of shards: files against the manifest, rows against their layout."""

    input: tuple[Path, ...] = ()
    """Folders of sets, or folders above them."""
    max_problems: int = Field(20, ge=1)
    """Problems named before the check gives up."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name a folder with shards."


class Verified(NamedTuple):
    """What a check saw."""

    folder: Path
    shards: int
    sequences: int
    tokens: int
    held_out_sequences: int
    masked: int
    """Masked tokens of a static set."""


def verify(config: VerifyConfig) -> list[Verified]:
    """Check every set under the given folders.

    Raises:
        InputError: naming all problems found, one line each.
    """
    folders = sorted({shard.parent for path in config.input for shard in _all_shards(path)})
    results, problems = [], []
    for folder in folders:
        check = _Check(folder)
        results.append(check.run())
        problems += check.problems
    problems = list(dict.fromkeys(problems))
    if problems:
        more = len(problems) - config.max_problems
        listing = problems[: config.max_problems] + ([f"… and {more} more"] if more > 0 else [])
        raise InputError("these shards are not sound; build them again:" + "".join(f"\n  - {line}" for line in listing))
    return results


def _all_shards(path: Path) -> list[Path]:
    shards = sorted({*find_shards(path, "train"), *find_shards(path, "eval")})
    if not shards:
        raise InputError(f"{path}: no shard (*.hdf5) found.")
    return shards


class _Check:
    """Collects the problems of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []
        self._masked = self._tokens = 0

    def run(self) -> Verified:
        paths = sorted(self.folder.glob("*.hdf5"))
        manifest = self._tried(lambda: read_manifest(self.folder))
        headers = [header for path in paths if (header := self._tried(lambda path=path: read_header(path)))]
        if manifest is not None:
            self._compare(manifest, headers)
        vocabulary = self._vocabulary(headers)
        if (
            manifest is not None
            and vocabulary is not None
            and manifest.vocabulary_sha256 != vocabulary_sha256(vocabulary)
        ):
            self.problems.append(f"{self.folder}: the vocabulary beside the shards is not the manifest's")
        for header in headers:
            self._check_rows(header, vocabulary)
        return Verified(
            self.folder,
            len(headers),
            sum(header.num_rows for header in headers),
            self._tokens,
            sum(header.num_rows for header in headers if is_held_out(header.path.name)),
            self._masked,
        )

    def _tried(self, read: Any) -> Any:
        try:
            return read()
        except InputError as error:
            self.problems.append(str(error))
            return None

    def _vocabulary(self, headers: list[Header]) -> Vocabulary | None:
        """Open the set as training does, with all its checks, and take its vocabulary."""
        vocabulary = None
        for held_out in {is_held_out(header.path.name) for header in headers}:
            shards = self._tried(lambda part="eval" if held_out else "train": open_shards(self.folder, part))
            vocabulary = vocabulary or (shards.vocabulary if shards is not None else None)
        return vocabulary

    def _compare(self, manifest: Manifest, headers: list[Header]) -> None:
        found = {header.path.name: header for header in headers}
        for record in manifest.shards:
            header = found.pop(record.name, None)
            path = self.folder / record.name
            if header is None:
                if not path.exists():
                    self.problems.append(f"{path}: named by the manifest, but missing")
            elif header.num_rows != record.rows:
                self.problems.append(f"{path}: {header.num_rows} rows, the manifest says {record.rows}")
            elif sha256_of(path) != record.sha256:
                self.problems.append(f"{path}: its bytes are not those of the manifest (SHA-256 differs)")
            if header is not None and header.layout != manifest.layout:
                self.problems.append(f"{path}: layout {header.layout}, the manifest says {manifest.layout}")
        self.problems += [f"{self.folder / name}: not in the manifest" for name in found]

    def _check_rows(self, header: Header, vocabulary: Vocabulary | None) -> None:
        for name, column in COLUMNS[header.layout].items():
            found = header.columns[name][0]
            if found.lstrip("<|") != column.dtype.lstrip("<"):
                self.problems.append(f"{header.path}: {name} is {found}, wanted {column.dtype}")
        shard = OpenShard(header)
        for start in range(0, header.num_rows, _ROWS_AT_ONCE):
            rows = shard.rows(np.arange(start, min(start + _ROWS_AT_ONCE, header.num_rows)))
            self._tokens += int(rows.lengths.sum())
            if rows.static_masks is not None:
                self._masked += int(rows.static_masks.counts.sum())
            for problem, wrong in _row_problems(rows, vocabulary):
                if wrong.any():
                    first = start + int(np.flatnonzero(wrong)[0])
                    self.problems.append(f"{header.path}: row {first}: {problem} ({int(wrong.sum())} such row(s))")


def _row_problems(rows: SequenceRows, vocabulary: Vocabulary | None) -> Iterator[tuple[str, Any]]:
    """Yield each kind of problem with the rows, bool (n,), that have it."""
    ids, lengths = rows.input_ids, rows.lengths
    which, columns = np.arange(len(ids)), np.arange(ids.shape[1])
    bad_edges = (
        (lengths < 3) | (lengths > ids.shape[1]) | (rows.segment_b_starts < 2) | (rows.segment_b_starts > lengths)
    )
    yield "its lengths and positions are impossible", bad_edges
    if rows.next_sentence_labels is not None:
        yield "segment B is empty", ~bad_edges & (rows.segment_b_starts >= lengths - 1)
        yield "the next-sentence label is neither 0 nor 1", (rows.next_sentence_labels & ~1) != 0
    if bad_edges.any():
        return
    pad_id = 0 if vocabulary is None else vocabulary.pad_id
    yield "something stands in the padding", ((columns >= lengths[:, None]) & (ids != pad_id)).any(axis=1)
    if vocabulary is not None:
        size, special = len(vocabulary.tokens), vocabulary.special
        yield f"an id outside the vocabulary's 0 … {size - 1}", ((ids < 0) | (ids >= size)).any(axis=1)
        cls_id, sep_id = vocabulary.cls_id, vocabulary.sep_id
        yield f"it does not start with {special.cls}", ids[:, 0] != cls_id
        borders = (ids[which, lengths - 1] != sep_id) | (ids[which, rows.segment_b_starts - 1] != sep_id)
        yield f"its segments do not end with {special.sep}", borders
        inner = (columns > 0) & (columns < lengths[:, None] - 1) & (columns != rows.segment_b_starts[:, None] - 1)
        stray = [cls_id, pad_id]
        if rows.next_sentence_labels is not None:
            stray.append(sep_id)  # in a single segment, one stands between documents (FULL-SENTENCES)
        if rows.static_masks is None:
            stray.append(vocabulary.mask_id)
        yield "a special token stands inside a segment", (inner & np.isin(ids, stray)).any(axis=1)
    if rows.static_masks is not None:
        yield from _mask_problems(rows, vocabulary)


def _mask_problems(rows: SequenceRows, vocabulary: Vocabulary | None) -> Iterator[tuple[str, Any]]:
    assert rows.static_masks is not None
    positions, token_ids, counts = rows.static_masks
    used = np.arange(positions.shape[1]) < counts[:, None]
    yield "a used slot of masked_lm_positions follows an empty one", ((positions != 0) != used).any(axis=1)
    steps = np.diff(positions, axis=1)[:, : positions.shape[1] - 1]
    yield "masked positions do not increase (one is masked twice?)", (used[:, 1:] & (steps <= 0)).any(axis=1)
    last, middle = rows.lengths[:, None] - 1, rows.segment_b_starts[:, None] - 1
    special = used & ((positions <= 0) | (positions >= last) | (positions == middle))
    yield "a special token or padding is masked", special.any(axis=1)
    if vocabulary is not None:
        wrong = np.isin(token_ids, vocabulary.structural_ids) | (token_ids < 0) | (token_ids >= len(vocabulary.tokens))
        yield "masked_lm_ids holds a special token or an id outside the vocabulary", (used & wrong).any(axis=1)
