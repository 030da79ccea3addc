"""Writing shards: rows to one HDF5 file, whole or absent, equal bytes for equal rows.

A file is made in memory and written in one go: HDF5 answers a full disk with damaged state, Python with an OSError.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from bert_pytorch.files import atomic_path
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import layouts
from bert_pytorch.shards.layouts import COLUMNS, Layout

Compression = Literal["none", "gzip"]
Attributes = Mapping[str, str | int | float | bool]


def write_shard(path: Path, rows: SequenceRows, attributes: Attributes, compression: Compression = "none") -> str:
    """Write rows in NVIDIA's layout if they carry static masks, else in the native one; return the file's SHA-256.

    Args:
        path: the file, replaced if it exists.
        rows: at least one row; `next_sentence_labels` None writes a set without the next-sentence task.
        attributes: stored on the file beside the layout and its version.
        compression: `none` is contiguous, so that readers can memory-map it.
    """
    layout: Layout = "native" if rows.static_masks is None else "nvidia"
    columns = _native_columns(rows) if layout == "native" else _nvidia_columns(rows)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema_version"] = layouts.SCHEMA_VERSION
        file.attrs["layout"] = layout
        file.attrs["next_sentence"] = rows.next_sentence_labels is not None
        for name, value in sorted(attributes.items()):
            file.attrs[name] = value
        for name, column in COLUMNS[layout].items():
            data = np.ascontiguousarray(columns[name], dtype=column.dtype)
            file.create_dataset(name, data=data, compression=None if compression == "none" else compression)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


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
