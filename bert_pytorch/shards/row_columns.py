"""From the datasets of a layout to rows: which are needed, joined from several shards, and what they mean."""

import numpy as np

from bert_pytorch.records import SequenceRows, StaticMasks
from bert_pytorch.shards import layouts, packed
from bert_pytorch.shards.headers import Header
from bert_pytorch.shards.layouts import Layout


def needed_columns(header: Header) -> list[str]:
    """Return the datasets that rows are made of."""
    unused = () if header.next_sentence else (layouts.NEXT_SENTENCE_LABELS, layouts.SEGMENT_IDS)
    return [name for name in header.columns if name not in unused]


def scatter_columns(parts: list[dict[str, np.ndarray]], order: np.ndarray) -> dict[str, np.ndarray]:
    """Join what was gathered from several shards, putting row i to place `order[i]`, int64 (n,).

    Slots for masks may differ in number among shards; the others are padded with 0.
    """
    if len(parts) == 1 and (len(order) < 2 or (np.diff(order) > 0).all()):
        return parts[0]
    joined = {}
    for name, first in parts[0].items():
        width = max(part[name].shape[1:] for part in parts)
        joined[name] = np.zeros((len(order), *width), first.dtype)
        start = 0
        for part in parts:
            found = part[name]
            places = order[start : start + len(found)]
            start += len(found)
            if found.shape[1:] == width:
                joined[name][places] = found
            else:
                joined[name][places, : found.shape[1]] = found
    return joined


def unpacked(
    header: Header, columns: dict[str, np.ndarray], places: np.ndarray, numbers: np.ndarray
) -> dict[str, np.ndarray]:
    """Take sequences out of rows of a packed shard; see `packed.unpack`.

    Args:
        header: of the shard.
        columns: datasets of the packed layout, or some rows of each.
        places: int64 (k,), row in `columns` × slots + slot of each sequence.
        numbers: int64 (k,), of the sequences in the shard, for messages.
    """
    rows, slots = np.divmod(places, columns[layouts.NEXT_SENTENCE_WEIGHTS].shape[1])
    pad_id = int(header.attributes.get(layouts.PAD_ID, 0))
    return packed.unpack(columns, rows, slots, pad_id, header.path, numbers)


def rows_of(layout: Layout, next_sentence: bool, columns: dict[str, np.ndarray]) -> SequenceRows:
    """Make rows of what was read of a layout's datasets."""
    native = layout == "native"
    lengths = _native_lengths(columns) if native else columns[layouts.INPUT_MASK].sum(axis=1, dtype=np.int32)
    starts, labels = lengths, None
    if next_sentence:
        starts = _native_starts(columns) if native else lengths - columns[layouts.SEGMENT_IDS].sum(1, dtype=np.int32)
        labels = columns[layouts.NEXT_SENTENCE_LABELS].astype(np.int8, copy=False)
    return SequenceRows(
        input_ids=columns[layouts.INPUT_IDS].astype(np.int32, copy=False),
        lengths=lengths,
        segment_b_starts=starts,
        next_sentence_labels=labels,
        static_masks=None if native else _static_masks(columns),
    )


def _native_lengths(columns: dict[str, np.ndarray]) -> np.ndarray:
    return columns[layouts.SPECIAL_TOKEN_POSITIONS][:, -1].astype(np.int32, copy=False) + 1


def _native_starts(columns: dict[str, np.ndarray]) -> np.ndarray:
    return columns[layouts.SPECIAL_TOKEN_POSITIONS][:, 1].astype(np.int32, copy=False) + 1


def _static_masks(columns: dict[str, np.ndarray]) -> StaticMasks:
    positions = columns[layouts.MASKED_POSITIONS].astype(np.int32, copy=False)
    used = (positions != 0).sum(axis=1, dtype=np.int32)  # position 0 is [CLS], never masked: 0 means an empty slot
    return StaticMasks(positions, columns[layouts.MASKED_IDS].astype(np.int32, copy=False), used)
