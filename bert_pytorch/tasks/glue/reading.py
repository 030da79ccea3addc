"""Reading GLUE's tab-separated files, which know no quoting."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.tasks.glue.layouts import Layout


class GlueExamples(NamedTuple):
    """The examples of a file."""

    first: list[str]
    """Texts."""
    second: list[str] | None
    """Texts that go with them."""
    labels: list[str] | None
    """As they stand in the file; None where it has none."""
    lines: list[int]
    """Number of the line of each, from 1."""


def read_part(path: Path, layout: Layout, *, labelled: bool) -> GlueExamples:
    """Read a file.

    Args:
        path: of it.
        layout: of its task.
        labelled: whether it is train or dev, which have labels, and in CoLA no line of names.

    Raises:
        InputError: naming the line.
    """
    header = layout.header if labelled else None
    return _read(path, header, (layout.first, layout.second, layout.label), needs_labels=labelled)


def read_diagnostics(path: Path, columns: tuple[tuple[str, str, str], ...]) -> GlueExamples:
    """Read the diagnostic set, by whichever of these triples of columns it has."""
    found = _lines(path)[:1]
    names = found[0] if found else []
    chosen = next((triple for triple in columns if triple[0] in names), columns[0])
    return _read(path, None, chosen, needs_labels=False)


def encode_labels(path: Path, examples: GlueExamples, layout: Layout, names: tuple[str, ...]) -> np.ndarray | None:
    """Return labels as numbers: int64 (n,), or float32 (n,) for STS-B; None without labels.

    Raises:
        InputError: naming the line of an unknown label.
    """
    if examples.labels is None:
        return None
    index = {name: number for number, name in enumerate(names)}
    values: list[float] = []
    for line, label in zip(examples.lines, examples.labels, strict=True):
        try:
            values.append(float(label) if layout.problem == "regression" else index[label])
        except (ValueError, KeyError):
            wanted = "a number" if layout.problem == "regression" else " or ".join(names)
            raise InputError(f"{path}, line {line}: the label is {label!r}, wanted {wanted}.") from None
    return np.array(values, np.float32 if layout.problem == "regression" else np.int64)


def _read(
    path: Path, header: tuple[str, ...] | None, columns: tuple[str, str | None, str], *, needs_labels: bool
) -> GlueExamples:
    rows = _lines(path)
    names = list(header) if header is not None else rows[0] if rows else []
    start = 0 if header is not None else 1
    first, second, label = columns
    wanted = [name for name in (first, second, label if needs_labels else None) if name is not None]
    if missing := [name for name in wanted if name not in names]:
        raise InputError(f"{path}, line 1: found the columns {', '.join(names)}; {', '.join(missing)} is missing.")
    if len(rows) <= start:
        raise InputError(f"{path}: it has no examples. Fetch it again.")
    for number, row in enumerate(rows[start:], start=start + 1):
        if len(row) != len(names):
            raise InputError(
                f"{path}, line {number}: found {len(row)} fields, wanted {len(names)} between tabs. Mend the line, or "
                "fetch the file again."
            )
    place = {name: index for index, name in enumerate(names)}
    chosen = rows[start:]
    return GlueExamples(
        first=[row[place[first]] for row in chosen],
        second=None if second is None else [row[place[second]] for row in chosen],
        labels=[row[place[label]] for row in chosen] if label in place else None,
        lines=list(range(start + 1, len(rows) + 1)),
    )


def _lines(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Check --data_dir: it is GLUE's folder, or that of the task.")
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            return [line.rstrip("\r\n").split("\t") for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: it is not UTF-8 (byte {error.start:,}). Fetch it again.") from None
