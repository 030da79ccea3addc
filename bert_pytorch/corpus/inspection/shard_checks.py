"""Checking one shard: its file against the manifest's record, its rows against their layout."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.inspection.row_problems import row_problems
from bert_pytorch.errors import InputError, explain_os_error
from bert_pytorch.files import sha256_of
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.entries import ShardEntry
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.layouts import COLUMNS, SPECIAL_TOKEN_POSITIONS
from bert_pytorch.shards.manifest import ShardRecord
from bert_pytorch.shards.streams import read_cls_positions, read_parts
from bert_pytorch.shards.vocabularies import refuse_other_vocabulary


class ShardCheck(NamedTuple):
    """One shard to be checked."""

    path: Path
    record: ShardRecord | None
    """What the manifest says of it."""
    vocabulary: Vocabulary | None

    @property
    def num_bytes(self) -> int:
        """Of the file; 0 where it is gone."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def describe(self) -> str:
        """Name the shard."""
        return str(self.path)


class ShardReport(NamedTuple):
    """What a shard holds, and what is wrong with it."""

    path: Path
    header: Header | None
    """None where the file cannot be read."""
    histogram: np.ndarray
    """int64 (L + 1,), rows of each length in tokens; impossible lengths are left out."""
    masked: int
    problems: list[str]


def check_shard(task: ShardCheck) -> ShardReport:
    """Check one shard by itself, and against what the manifest says of it."""
    problems: list[str] = []
    header = tried(problems, lambda: read_header(task.path))
    nothing = np.zeros(1, np.int64)
    found_sha256 = None if task.record is None else tried(problems, lambda: sha256_of(task.path))
    if task.record is not None and found_sha256 not in (None, task.record.sha256):
        problems.append(f"{task.path}: its bytes are not those of the manifest (SHA-256 differs)")
    if header is None:
        return ShardReport(task.path, None, nothing, 0, problems)
    for name, column in COLUMNS[header.layout].items():
        found = header.columns[name][0]
        if found.lstrip("<|") != column.dtype.lstrip("<"):
            problems.append(f"{task.path}: {name} is {found}, wanted {column.dtype}")
    vocabulary = task.vocabulary
    if vocabulary is not None:
        tried(problems, lambda: refuse_other_vocabulary([ShardEntry.of(header)], vocabulary, "the one beside it"))
    counted = tried(problems, lambda: _check_rows(task, header, problems))
    histogram, masked = counted if counted is not None else (nothing, 0)
    if task.record is not None and counted is not None:
        problems += _count_problems(task.path, task.record, header, histogram)
    return ShardReport(task.path, header, histogram, masked, problems)


def _check_rows(task: ShardCheck, header: Header, problems: list[str]) -> tuple[np.ndarray, int]:
    histogram, masked, start = np.zeros(header.sequence_length + 1, np.int64), 0, 0
    crosses = header.attributes.get("sequences") == "full_sentences"
    found: dict[str, tuple[int, int]] = {}
    for rows in read_parts(header):
        lengths = rows.lengths[(rows.lengths >= 0) & (rows.lengths <= header.sequence_length)]
        histogram += np.bincount(lengths, minlength=len(histogram))
        masked += 0 if rows.static_masks is None else int(rows.static_masks.counts.sum())
        found_here = list(row_problems(rows, task.vocabulary, crosses_documents=crosses))
        if header.layout == "native":
            stored = read_cls_positions(header, start, start + len(rows.lengths))
            found_here.append((f"{SPECIAL_TOKEN_POSITIONS} does not start with 0", stored != 0))
        for problem, wrong in found_here:
            if wrong.any():
                first, count = found.get(problem, (start + int(np.flatnonzero(wrong)[0]), 0))
                found[problem] = first, count + int(wrong.sum())
        start += len(rows.lengths)
    problems += [
        f"{task.path}: row {first}: {problem} ({count} such row(s))" for problem, (first, count) in found.items()
    ]
    return histogram, masked


def _count_problems(path: Path, record: ShardRecord, header: Header, histogram: np.ndarray) -> Iterator[str]:
    lengths = np.flatnonzero(histogram)
    found: dict[str, int] = {"rows": header.num_rows, "tokens": int(histogram @ np.arange(len(histogram)))}
    if record.longest and len(lengths):  # manifests of the first version do not say
        found |= {"shortest": int(lengths[0]), "longest": int(lengths[-1])}
    for name, value in found.items():
        if value != getattr(record, name):
            yield f"{path}: {name}: {value}, the manifest says {getattr(record, name)}"


def tried(problems: list[str], read: Any) -> Any:
    """Return what `read` returns, or None with the message of its `InputError` or `OSError` added to `problems`."""
    try:
        return read()
    except InputError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(explain_os_error(error))
    return None
