"""Where results go: JSON lines on standard output or in a file, or embeddings as a NumPy array."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from bert_pytorch.files import atomic_path


@contextlib.contextmanager
def json_lines(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes one object as a line; a file appears when all is written."""
    if path is None:
        yield lambda value: print(_line(value), flush=True)  # noqa: T201 the program's own output
        return
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield lambda value: print(_line(value), file=file)


@contextlib.contextmanager
def growing_array(path: Path) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that adds a row, float32, to a `.npy` file, which appears when all is written."""
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        shape = (0, 0)
        _write_header(file, shape)

        def add(row: np.ndarray) -> None:
            nonlocal shape
            file.write(row.astype("<f4").tobytes())
            shape = (shape[0] + 1, len(row))

        yield add
        file.seek(0)
        _write_header(file, shape)


def _write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    """Write a header of the same size for any shape of use: NumPy pads it to let arrays grow, and to 64 bytes."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
