"""From what a label column holds to numbers, and which classes there are."""
# n examples, L classes

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.tasks.classification.reading import Examples
from bert_pytorch.tasks.problems import Problem

MANY_CLASSES = 50
"""From so many classes on, a label column in which most values are seen once is taken for a mistake."""


def discover(path: Path, examples: Examples, problem: Problem, separator: str) -> tuple[str, ...]:
    """Return the classes of a training file: numbers by size, other names in alphabetical order.

    Raises:
        InputError: if there are fewer than two (multi-label: none), or nearly as many as examples.
    """
    names = {name for names in classes_of(path, examples, problem, separator) for name in names}
    count, least = len(examples.lines), 1 if problem == "multi_label" else 2
    if len(names) < least:
        found = f"only {names.pop()!r}" if names else "none"
        raise InputError(f"{path}: found {found} in the label column, wanted at least {least} classes to tell apart.")
    if len(names) > max(MANY_CLASSES, count // 2):
        raise InputError(
            f"{path}: found {len(names)} different labels in {count} examples. Name the column of classes "
            "(--label_column), or learn numbers: --problem regression."
        )
    numeric = all(name.isascii() and name.removeprefix("-").isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))


def encode(path: Path, examples: Examples, problem: Problem, separator: str, names: Sequence[str]) -> np.ndarray:
    """Return labels as numbers: int64 (n,), float32 (n, L) of 0 and 1, or float32 (n,).

    Raises:
        InputError: naming the line of an unknown class, or of what is no number.
    """
    if problem == "regression":
        return np.array([_number(path, line, value) for line, value in _values(examples)], np.float32)
    index = {name: number for number, name in enumerate(names)}
    encoded = np.zeros((len(examples.lines), len(names)), np.float32)
    for row, found in enumerate(classes_of(path, examples, problem, separator)):
        for name in found:
            if name not in index:
                known = ", ".join(repr(known) for known in names[:10]) + (", …" if len(names) > 10 else "")
                raise InputError(
                    f"{path}, line {examples.lines[row]}: the label {name!r} is unknown; the model knows {known}. Mend "
                    "the label, or train with examples of it."
                )
            encoded[row, index[name]] = 1
    return encoded if problem == "multi_label" else encoded.argmax(axis=1).astype(np.int64)


def classes_of(path: Path, examples: Examples, problem: Problem, separator: str) -> Iterable[tuple[str, ...]]:
    """Yield the names of each example's classes; one unless `problem` is multi_label.

    Raises:
        InputError: naming the line of a label that is no name, or empty.
    """
    for line, value in _values(examples):
        if problem == "multi_label":
            items = value if isinstance(value, list) else str(value).split(separator) if value not in (None, "") else []
            names = tuple(_name(path, line, item) for item in items)
        else:
            names = (_name(path, line, value),)
        yield names


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return n / (L * examples of the class), float32 (L,); a class without examples gets 1 (King and Zeng 2001)."""
    counts = np.bincount(labels, minlength=classes)
    return np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 1).astype(np.float32)


def _values(examples: Examples) -> Iterable[tuple[int, Any]]:
    assert examples.labels is not None
    return zip(examples.lines, examples.labels, strict=True)


def _name(path: Path, line: int, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise InputError(f"{path}, line {line}: the label is {value!r}, wanted the name of a class.")


def _number(path: Path, line: int, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{path}, line {line}: the label is {value!r}, wanted a number (--problem regression).")
    return number
