"""Writing shards: rows to one HDF5 file, whole or absent, equal bytes for equal rows.

A file is made in memory and written in one go: HDF5 answers a full disk with damaged state, Python with an OSError.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import h5py
import numpy as np

from bert_pytorch.files import atomic_path
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import layouts
from bert_pytorch.shards.layouts import COLUMNS, Layout

_CHUNK_ROWS = 1024
Compression = Literal["none", "gzip"]
Attributes = Mapping[str, str | int | float | bool]


class Written(NamedTuple):
    """What a finished shard holds."""

    tokens: int
    """Before the padding, special ones included."""
    shortest: int
    """Tokens of the shortest row."""
    longest: int
    """Tokens of the longest row."""
    bytes: int
    """Size of the file."""
    sha256: str
    """Of the file."""


def write_shard(path: Path, rows: SequenceRows, attributes: Attributes, compression: Compression = "none") -> Written:
    """Write rows as one shard; as `write_parts` does."""
    return write_parts(path, [rows], len(rows.lengths), attributes, compression)


def write_parts(
    path: Path, parts: Iterable[SequenceRows], num_rows: int, attributes: Attributes, compression: Compression = "none"
) -> Written:
    """Write rows in NVIDIA's layout if they carry static masks, else in the native one.

    Args:
        path: the file, replaced if it exists.
        parts: at least one row, part after part, so that memory holds the file and one part; `next_sentence_labels`
            None writes a set without the next-sentence task.
        num_rows: rows of all parts together.
        attributes: stored on the file beside the layout, its version, and what `Written` counts.
        compression: `none` is contiguous, so that readers can memory-map it.
    """
    buffer = io.BytesIO()
    tokens, shortest, longest, done = 0, np.iinfo(np.int32).max, 0, 0
    with h5py.File(buffer, "w") as file:
        for rows in parts:
            columns = _columns(rows)
            if not done:
                _create(file, columns, num_rows, compression)
                file.attrs["layout"] = _layout(rows)
                file.attrs["next_sentence"] = rows.next_sentence_labels is not None
            for name, data in columns.items():
                file[name][done : done + len(data)] = data
            done += len(rows.lengths)
            tokens += int(rows.lengths.sum(dtype=np.int64))
            shortest, longest = min(shortest, int(rows.lengths.min())), max(longest, int(rows.lengths.max()))
        assert done == num_rows, f"{path}: {done} rows came, {num_rows} were announced"
        counted = {"schema_version": layouts.SCHEMA_VERSION, "tokens": tokens, "shortest": shortest, "longest": longest}
        for name, value in sorted({**attributes, **counted}.items()):
            file.attrs[name] = value
    size, sha256 = write_file(path, buffer)
    return Written(tokens, shortest, longest, size, sha256)


def write_file(path: Path, buffer: io.BytesIO) -> tuple[int, str]:
    """Write a file made in memory, whole or absent; returns its size and SHA-256."""
    content = buffer.getbuffer()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return len(content), hashlib.sha256(content).hexdigest()


def _create(file: h5py.File, columns: dict[str, np.ndarray], num_rows: int, compression: Compression) -> None:
    for name, data in columns.items():
        create_dataset(file, name, (num_rows, *data.shape[1:]), data.dtype, compression)


def create_dataset(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, compression: Compression
) -> None:
    """Make an empty dataset: contiguous, or in chunks of many rows where it is compressed."""
    if compression == "none":
        file.create_dataset(name, shape, dtype)
    else:
        chunks = (min(shape[0], _CHUNK_ROWS), *shape[1:])
        file.create_dataset(name, shape, dtype, chunks=chunks, compression=compression)


def _layout(rows: SequenceRows) -> Layout:
    return "native" if rows.static_masks is None else "nvidia"


def _columns(rows: SequenceRows) -> dict[str, np.ndarray]:
    layout = _layout(rows)
    columns = _native_columns(rows) if layout == "native" else _nvidia_columns(rows)
    return {name: columns[name].astype(column.dtype, copy=False) for name, column in COLUMNS[layout].items()}


def row_bytes(layout: Layout, sequence_length: int, slots: int) -> int:
    """Return the bytes that one row takes in a file; `slots` are those for masked tokens."""
    widths = {2: sequence_length, 1: 1}
    wide = {layouts.MASKED_POSITIONS: slots, layouts.MASKED_IDS: slots, layouts.SPECIAL_TOKEN_POSITIONS: 3}
    return sum(
        np.dtype(column.dtype).itemsize * wide.get(name, widths[column.dimensions])
        for name, column in COLUMNS[layout].items()
    )


def _native_columns(rows: SequenceRows) -> dict[str, np.ndarray]:
    last = rows.lengths - 1
    positions = [np.zeros_like(last), last]
    if rows.next_sentence_labels is not None:
        positions.insert(1, rows.segment_b_starts - 1)
    return {
        layouts.INPUT_IDS: rows.input_ids,
        layouts.SPECIAL_TOKEN_POSITIONS: np.stack(positions, axis=1),
        layouts.NEXT_SENTENCE_LABELS: _labels(rows),
    }


def _nvidia_columns(rows: SequenceRows) -> dict[str, np.ndarray]:
    assert rows.static_masks is not None
    columns = np.arange(rows.input_ids.shape[1])
    inside = columns < rows.lengths[:, None]
    return {
        layouts.INPUT_IDS: rows.input_ids,
        layouts.INPUT_MASK: inside,
        layouts.SEGMENT_IDS: inside & (columns >= rows.segment_b_starts[:, None]),
        layouts.MASKED_POSITIONS: rows.static_masks.positions,
        layouts.MASKED_IDS: rows.static_masks.token_ids,
        layouts.NEXT_SENTENCE_LABELS: _labels(rows),
    }


def _labels(rows: SequenceRows) -> np.ndarray:
    return np.zeros(len(rows.lengths), np.int8) if rows.next_sentence_labels is None else rows.next_sentence_labels
