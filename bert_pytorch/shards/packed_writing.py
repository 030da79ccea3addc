"""Writing Habana's packed layout (Model-References' `pack_pretraining_data_pytorch.py`), for any number of slots."""

import io
from pathlib import Path

import h5py
import numpy as np

from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import layouts
from bert_pytorch.shards.layouts import COLUMNS
from bert_pytorch.shards.writing import Attributes, Compression, Written, create_dataset, write_file


def write_packed(
    path: Path,
    sequences: SequenceRows,
    rows: np.ndarray,
    slots: np.ndarray,
    max_sequences: int,
    mask_slots: int,
    pad_id: int,
    attributes: Attributes,
    compression: Compression = "none",
) -> Written:
    """Write sequences as packed rows; whole or absent, equal bytes for equal arguments.

    Args:
        path: the file, replaced if it exists.
        sequences: n of them, with static masks, n > 0.
        rows: int64 (n,), row of each, from 0 without gaps.
        slots: int64 (n,), place of each in its row, from 0 without gaps.
        max_sequences: K, slots for sequences of a row.
        mask_slots: P at least; more where a row needs more.
        pad_id: fills up rows.
        attributes: stored on the file.
        compression: `none` is contiguous, so that readers can memory-map it.
    """
    columns = packed_columns(sequences, rows, slots, max_sequences, mask_slots, pad_id)
    lengths = sequences.lengths
    counted: dict[str, str | int | float | bool] = {
        "schema_version": layouts.SCHEMA_VERSION,
        "layout": "packed",
        "next_sentence": sequences.next_sentence_labels is not None,
        layouts.NUM_SEQUENCES: len(lengths),
        layouts.PAD_ID: pad_id,
        "tokens": int(lengths.sum(dtype=np.int64)),
        "shortest": int(lengths.min()),
        "longest": int(lengths.max()),
    }
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, data in columns.items():
            create_dataset(file, name, data.shape, data.dtype, compression)
            file[name][...] = data
        for name, value in sorted({**attributes, **counted}.items()):
            file.attrs[name] = value
    size, sha256 = write_file(path, buffer)
    return Written(int(lengths.sum(dtype=np.int64)), int(lengths.min()), int(lengths.max()), size, sha256)


def packed_columns(
    sequences: SequenceRows, rows: np.ndarray, slots: np.ndarray, max_sequences: int, mask_slots: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Lay sequences out in rows; arguments as those of `write_packed`."""
    masks = sequences.static_masks
    assert masks is not None
    length, num_rows = sequences.input_ids.shape[1], int(rows.max()) + 1
    offsets = _offsets(sequences.lengths, rows, slots)
    place = np.arange(length)
    real = place < sequences.lengths[:, None]  # (n, L)
    target = ((rows * length + offsets)[:, None] + place)[real]
    shape = {1: (num_rows, max_sequences), 2: (num_rows, length)}
    columns = {
        name: np.zeros(shape[1] if name in layouts.BY_SLOT else shape[2], column.dtype)
        for name, column in COLUMNS["packed"].items()
    }
    columns[layouts.INPUT_IDS][:] = pad_id
    columns[layouts.INPUT_IDS].ravel()[target] = sequences.input_ids[real]
    columns[layouts.INPUT_MASK].ravel()[target] = np.repeat(slots + 1, sequences.lengths)
    columns[layouts.SEGMENT_IDS].ravel()[target] = (place >= sequences.segment_b_starts[:, None])[real]
    columns[layouts.POSITIONS].ravel()[target] = np.broadcast_to(place, real.shape)[real]
    columns[layouts.NEXT_SENTENCE_POSITIONS][rows, slots] = offsets
    columns[layouts.NEXT_SENTENCE_WEIGHTS][rows, slots] = 1
    if sequences.next_sentence_labels is not None:
        columns[layouts.NEXT_SENTENCE_LABELS][rows, slots] = sequences.next_sentence_labels
    used = np.arange(masks.positions.shape[1]) < masks.counts[:, None]
    owner, slot = np.nonzero(used)
    positions = offsets[owner] + masks.positions[owner, slot]
    order = np.lexsort((positions, rows[owner]))
    row = rows[owner][order]
    in_row = np.arange(len(row)) - np.searchsorted(row, row)
    most = max(mask_slots, int(in_row.max(initial=-1)) + 1)
    for name, values in ((layouts.MASKED_POSITIONS, positions), (layouts.MASKED_IDS, masks.token_ids[owner, slot])):
        columns[name] = np.zeros((num_rows, most), COLUMNS["packed"][name].dtype)
        columns[name][row, in_row] = values[order]
    return columns


def _offsets(lengths: np.ndarray, rows: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Return where each sequence begins in its row, int64 (n,)."""
    order = np.lexsort((slots, rows))
    before = np.cumsum(lengths[order], dtype=np.int64) - lengths[order]
    first = np.searchsorted(rows[order], rows[order])
    offsets = np.empty(len(lengths), np.int64)
    offsets[order] = before - before[first]
    return offsets
