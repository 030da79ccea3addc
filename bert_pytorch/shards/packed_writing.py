"""Writing Habana's packed layout (Model-References' `pack_pretraining_data_pytorch.py`), for any number of slots."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_pytorch.files import sha256_of
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import layouts
from bert_pytorch.shards.layouts import COLUMNS
from bert_pytorch.shards.streamed_writing import streamed_file
from bert_pytorch.shards.writing import Attributes, Compression, Written, create_dataset


class Block(NamedTuple):
    """Consecutive rows of a file and the n sequences in them."""

    sequences: SequenceRows
    """With static masks, n > 0."""
    rows: np.ndarray
    """int (n,), row of each, from 0 without gaps."""
    slots: np.ndarray
    """int (n,), place of each in its row, from 0 without gaps."""


def write_packed(
    path: Path,
    blocks: Iterable[Block],
    num_rows: int,
    max_sequences: int,
    mask_slots: int,
    pad_id: int,
    attributes: Attributes,
    compression: Compression = "none",
) -> Written:
    """Write sequences as packed rows; whole or absent, equal bytes for equal arguments.

    Args:
        path: the file, replaced if it exists.
        blocks: at least one, block after block, so that memory holds one.
        num_rows: rows of all blocks together.
        max_sequences: K, slots for sequences of a row.
        mask_slots: P, as many as the fullest row needs, or more: `most_masked_tokens`.
        pad_id: fills up rows.
        attributes: stored on the file.
        compression: `none` is contiguous, so that readers can memory-map it.
    """
    counted: dict[str, str | int | float | bool] = {
        "schema_version": layouts.SCHEMA_VERSION, "layout": "packed", layouts.PAD_ID: pad_id
    }  # fmt: skip
    done, sequences, tokens, shortest, longest = 0, 0, 0, np.iinfo(np.int32).max, 0
    with streamed_file(path) as (file, check):
        for block in blocks:
            columns = packed_columns(*block, max_sequences, mask_slots, pad_id)
            if not done:
                counted["next_sentence"] = block.sequences.next_sentence_labels is not None
                for name, data in columns.items():
                    create_dataset(file, name, (num_rows, *data.shape[1:]), data.dtype, compression)
            for name, data in columns.items():
                file[name][done : done + len(data)] = data
            check()
            done += len(columns[layouts.INPUT_IDS])
            lengths = block.sequences.lengths
            sequences, tokens = sequences + len(lengths), tokens + int(lengths.sum(dtype=np.int64))
            shortest, longest = min(shortest, int(lengths.min())), max(longest, int(lengths.max()))
        assert done == num_rows, f"{path}: {done} rows came, {num_rows} were announced"
        counted |= {layouts.NUM_SEQUENCES: sequences, "tokens": tokens, "shortest": shortest, "longest": longest}
        for key, value in sorted({**attributes, **counted}.items()):
            file.attrs[key] = value
    return Written(tokens, shortest, longest, path.stat().st_size, sha256_of(path))


def most_masked_tokens(rows: np.ndarray, counts: np.ndarray) -> int:
    """Return the masked tokens of the row that has most; arguments are the row and the masked tokens of n sequences."""
    return int(np.bincount(rows, counts).max(initial=0))


def packed_columns(
    sequences: SequenceRows, rows: np.ndarray, slots: np.ndarray, max_sequences: int, mask_slots: int, pad_id: int
) -> dict[str, np.ndarray]:
    """Lay sequences out in rows; arguments as those of `Block` and `write_packed`."""
    masks = sequences.static_masks
    assert masks is not None
    length, num_rows = int(sequences.input_ids.shape[1]), int(rows.max()) + 1
    offsets = _offsets(sequences.lengths, rows, slots)
    place = np.arange(length)
    real = place < sequences.lengths[:, None]  # (n, L)
    target = ((rows * length + offsets)[:, None] + place)[real]
    widths: dict[str, int] = dict.fromkeys(COLUMNS["packed"], length) | dict.fromkeys(layouts.BY_SLOT, max_sequences)
    widths |= {layouts.MASKED_POSITIONS: mask_slots, layouts.MASKED_IDS: mask_slots}
    columns = {name: np.zeros((num_rows, widths[name]), column.dtype) for name, column in COLUMNS["packed"].items()}
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
    for name, values in ((layouts.MASKED_POSITIONS, positions), (layouts.MASKED_IDS, masks.token_ids[owner, slot])):
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
