"""`metrics.jsonl` and the CSV: one line a row, handed to the operating system at once, so that a kill costs no line.

When a run continues from update N, the rows of later updates belong to a future that was given up: they are dropped
atomically before the first new one is written, and so are sessions that began at N or later and left no checkpoint, and
a last line that a kill has torn.
"""

import contextlib
import csv
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_path
from bert_pytorch.tracking.records import (
    AnyEvalRow,
    AnyStartRow,
    AnyTrainRow,
    EndRow,
    ExcludeRow,
    TrainRow,
    values_of,
)
from bert_pytorch.tracking.tracker import Tracker


class JsonLines(Tracker):
    """`metrics.jsonl`: every row as one JSON object; numbers that JSON lacks (NaN, infinities) become null.

    Args:
        path: the file; rows past `first_step` are dropped from it, and those of sessions that began there.
        first_step: updates done when this session begins.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        keeps = _Keeper(first_step)
        _keep_lines(path, [keeps(line) for line in _whole_lines(path)])
        self._file = _LineFile(path)

    def start(self, row: AnyStartRow) -> None:
        """Append a `start` row."""
        self._append("start", row)

    def exclusion(self, row: ExcludeRow) -> None:
        """Append an `exclude` row."""
        self._append("exclude", row)

    def train(self, row: AnyTrainRow) -> None:
        """Append a `train` row."""
        self._append("train", row)

    def evaluation(self, row: AnyEvalRow) -> None:
        """Append an `eval` row."""
        self._append("eval", row)

    def end(self, row: EndRow) -> None:
        """Append an `end` row."""
        self._append("end", row)

    def flush(self) -> None:
        """Bring the file to the disk."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, event: str, row: NamedTuple) -> None:
        values = {"event": event} | {name: _finite(value) for name, value in values_of(row).items()}
        self._file.append(json.dumps(values, allow_nan=False))


class Csv(Tracker):
    """`{log_prefix}_metrics.csv`: a column for each field of the rows of updates, a line for each logged one.

    Args:
        path: the file; rows past `first_step` are dropped from it.
        first_step: updates done when this session begins.
        fields: of the rows; the first is `step`.

    Raises:
        InputError: if the file has columns that are none of these; those of earlier versions are taken over.
    """

    def __init__(self, path: Path, first_step: int, fields: Sequence[str] = TrainRow._fields) -> None:
        header = _csv_line(fields)
        found = next(_whole_lines(path), None)
        columns = [] if found is None else found.split(",")
        if found is not None and (columns[0] != "step" or not set(columns) <= set(fields)):
            raise InputError(
                f"{path}: found the columns {found}, wanted {header}. "
                "Move the file away, or choose another --log_prefix."
            )
        keep = [line == header or _is_csv_row_up_to(line, first_step, len(columns)) for line in _whole_lines(path)]
        if found in (None, header):
            _keep_lines(path, keep)
        else:
            kept = itertools.compress(_whole_lines(path), keep)
            _rewrite(path, itertools.chain([header], (_in_columns(line, columns, fields) for line in kept)))
        self._file = _LineFile(path)
        if found is None:
            self._file.append(header)

    def train(self, row: AnyTrainRow) -> None:
        """Append a line."""
        self._file.append(_csv_line(row))

    def flush(self) -> None:
        """Bring the file to the disk."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _LineFile:
    """A text file that only grows, by whole lines, each flushed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, line: str) -> None:
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error  # write() does not know the name

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a line that could not be written was an error when it was appended
            self._file.close()


def _whole_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file that end in a newline, without it; nothing if there is no file."""
    if path.exists():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if line.endswith("\n"):
                    yield line[:-1]


def _keep_lines(path: Path, keep: Sequence[bool]) -> None:
    """Rewrite a file atomically with those of its whole lines that `keep` says, unless those are all of it."""
    kept_bytes = sum(len(line.encode()) + 1 for line in itertools.compress(_whole_lines(path), keep))
    if path.exists() and kept_bytes != path.stat().st_size:
        _rewrite(path, itertools.compress(_whole_lines(path), keep))


def _rewrite(path: Path, lines: Iterable[str]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def last_event(path: Path) -> str | None:
    """Return the event of the last whole row, None without one."""
    events = [_event(line) for line in _whole_lines(path)]
    return events[-1] if events else None


def _event(line: str) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row.get("event") if isinstance(row, dict) else None


class _Keeper:
    """Says of each row of a `metrics.jsonl` in turn whether a session that begins at `first_step` keeps it."""

    def __init__(self, first_step: int) -> None:
        self._first_step = first_step
        self._given_up = False

    def __call__(self, line: str) -> bool:
        try:
            row = json.loads(line)
        except ValueError:
            return False
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            return False
        self._given_up |= row.get("event") == "start" and row["step"] >= self._first_step
        return not self._given_up and row["step"] <= self._first_step


def _is_csv_row_up_to(line: str, step: int, columns: int) -> bool:
    first, *others = line.split(",")
    return first.isdecimal() and int(first) <= step and len(others) + 1 == columns


def _in_columns(line: str, columns: list[str], fields: Sequence[str]) -> str:
    """Put a line of an earlier version's columns under today's; what it lacks is empty."""
    values = dict(zip(columns, line.split(","), strict=True))
    return ",".join(values.get(name, "") for name in fields)


def _csv_line(values: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if value is None else value for value in values])
    return text.getvalue()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
