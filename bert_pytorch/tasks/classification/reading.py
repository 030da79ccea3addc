"""Reading texts and labels from CSV, TSV and JSON lines, with a message for each thing that can be wrong in them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.errors import InputError

csv.field_size_limit(1 << 30)

ENDINGS = (".csv", ".tsv", ".jsonl")


class Examples(NamedTuple):
    """A file, as it is."""

    lines: list[int]
    """Number of the line on which each example begins, from 1."""
    first: list[str]
    """Texts."""
    second: list[str] | None
    """Texts that go with them; None without a pair column."""
    labels: list[Any] | None
    """Values of the label column: texts from tables, anything from JSON; None where the file has no such column."""


def read_examples(path: Path, text: str, pair: str | None, label: str, *, needs_labels: bool) -> Examples:
    """Read a file; a .tsv has no quoting: what stands between tabs is text as it is.

    Args:
        path: ends in .csv, .tsv or .jsonl.
        text: column of the texts.
        pair: column of second texts.
        label: column of labels.
        needs_labels: whether the file is of no use without them.

    Raises:
        InputError: naming the line.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: found {path.suffix or 'no ending'}, wanted a file in {', '.join(ENDINGS)}.")
    rows = list(_json_rows(path) if path.suffix.lower() == ".jsonl" else _table_rows(path))
    if not rows:
        raise InputError(f"{path}: it has no examples. Name a file that has some.")
    has_labels = any(label in row for _, row in rows)
    wanted = [text, *([pair] if pair is not None else []), *([label] if needs_labels or has_labels else [])]
    for line, row in rows:
        for name in wanted:
            if name not in row:
                missing = f"{path}, line {line}: there is no {name!r}, found {_names(row)}."
                raise InputError(f"{missing} {_flag_of(name, text, pair)}")
        for name in wanted[: 2 if pair is not None else 1]:
            if not isinstance(row[name], str):
                raise InputError(f"{path}, line {line}: {name!r} is {_short(row[name])}, wanted a text.")
    return Examples(
        lines=[line for line, _ in rows],
        first=[row[text] for _, row in rows],
        second=None if pair is None else [row[pair] for _, row in rows],
        labels=[row[label] for _, row in rows] if label in wanted else None,
    )


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    is_csv = path.suffix.lower() == ".csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True) if is_csv else csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header):
                raise InputError(f"{path}, line 1: a column name stands twice in {_names(header)}. Rename one of them.")
            line = reader.line_num + 1
            for fields in reader:
                if fields and len(fields) != len(header):
                    raise InputError(
                        f"{path}, line {line}: found {len(fields)} fields, wanted {len(header)} as in line 1. Mend the "
                        "line; a text with the separator in it is written in quotes (CSV)."
                    )
                if fields:
                    yield line, dict(zip(header, fields, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: it cannot be read as a table ({error}). Mend it."
            ) from None
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: it is not UTF-8 (byte {error.start:,}). Convert it.") from None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(f"{path}, line {number}: it is not JSON. Write one object a line, in UTF-8.") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: found {_short(row)}, wanted an object with keys.")
            yield number, row


def _names(names: Any) -> str:
    shown = ", ".join(repr(str(name)[:40]) for name in list(names)[:12])
    return shown or "nothing"


def _flag_of(name: str, text: str, pair: str | None) -> str:
    flag = "--text_column" if name == text else "--text_pair_column" if name == pair else "--label_column"
    return f"Name the right one: {flag}"


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
