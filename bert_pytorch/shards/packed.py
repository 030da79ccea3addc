"""Habana's packed layout: several sequences a row, told apart by `input_mask` 1, 2, 3 …; here they become rows again.

n rows of length L with K slots for sequences and P for masked tokens.
"""

from pathlib import Path

import numpy as np

from bert_pytorch.shards import layouts
from bert_pytorch.shards.row_checks import damaged_row

Columns = dict[str, np.ndarray]


def places_of(weights: np.ndarray) -> np.ndarray:
    """Return where each sequence stands: row × K + slot, int64 (sequences,), in order.

    Args:
        weights: `next_sentence_weights`, (n, K); 0 marks an empty slot.
    """
    return np.flatnonzero(weights)


def unpack(
    columns: Columns, rows: np.ndarray, slots: np.ndarray, pad_id: int, path: Path, numbers: np.ndarray
) -> Columns:
    """Take sequences out of packed rows, as columns of NVIDIA's layout.

    Args:
        columns: datasets of the packed layout, or some rows of each.
        rows: int64 (k,), row of each sequence in `columns`.
        slots: int64 (k,), its slot in the row.
        pad_id: fills up what the sequence leaves of a row.
        path: of the shard, for messages.
        numbers: int64 (k,), of the sequences in the shard, for messages.

    Raises:
        DamagedShardError: where a sequence is not one stretch of its row, its `positions` do not count from 0, or a
            masked token lies outside of all.
    """
    owner = columns[layouts.INPUT_MASK].take(rows, axis=0)
    length = owner.shape[1]
    mine = owner == (slots + 1)[:, None]  # (k, L)
    lengths = mine.sum(axis=1)
    starts = columns[layouts.NEXT_SENTENCE_POSITIONS][rows, slots].astype(np.int64)
    place = np.arange(length)
    bad = (mine != ((place >= starts[:, None]) & (place < (starts + lengths)[:, None]))).any(axis=1) | (lengths == 0)
    if bad.any():
        one = int(bad.argmax())
        found = f"its {lengths[one]} tokens are not one stretch of its row from position {starts[one]} on"
        raise damaged_row(path, int(numbers[one]), found)
    astray = mine & (columns[layouts.POSITIONS].take(rows, axis=0) != place - starts[:, None])
    if astray.any():
        one, token = np.argwhere(astray)[0].tolist()
        found = columns[layouts.POSITIONS][rows[one], token]
        wanted = f"wanted {token - starts[one]}: they restart at each sequence"
        raise damaged_row(
            path, int(numbers[one]), f"{layouts.POSITIONS} has {found} at token {token} of its row, {wanted}"
        )
    lost = _unnamed(owner, columns[layouts.NEXT_SENTENCE_WEIGHTS].take(rows, axis=0))
    if lost.any():
        raise damaged_row(
            path, int(numbers[int(lost.argmax())]), "its row holds tokens of a sequence that no slot names"
        )
    source = np.minimum(starts[:, None] + place, length - 1)
    inside = place < lengths[:, None]
    positions, ids, stray = _masks(columns, rows, owner, starts, lengths)
    if stray.any():
        raise damaged_row(path, int(numbers[int(stray.argmax())]), "a masked token of its row lies in no sequence")

    def stretch(name: str, otherwise: int) -> np.ndarray:
        found = np.take_along_axis(columns[name].take(rows, axis=0), source, axis=1)
        return np.where(inside, found, np.array(otherwise, found.dtype))

    return {
        layouts.INPUT_IDS: stretch(layouts.INPUT_IDS, pad_id),
        layouts.INPUT_MASK: inside,
        layouts.SEGMENT_IDS: stretch(layouts.SEGMENT_IDS, 0),
        layouts.MASKED_POSITIONS: positions,
        layouts.MASKED_IDS: ids,
        layouts.NEXT_SENTENCE_LABELS: columns[layouts.NEXT_SENTENCE_LABELS][rows, slots],
    }


def _unnamed(owner: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Tell which rows hold tokens of no slot in use, bool (k,): a flipped weight would lose a sequence silently."""
    named = np.zeros(len(owner), np.int64)
    for slot in range(weights.shape[1]):
        named += (owner == slot + 1).sum(axis=1) * (weights[:, slot] != 0)
    return named != (owner != 0).sum(axis=1)


def unpacked_lengths(columns: Columns, rows: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Return the tokens of sequences, int32 (k,); arguments as those of `unpack`."""
    owner = columns[layouts.INPUT_MASK].take(rows, axis=0)
    return (owner == (slots + 1)[:, None]).sum(axis=1, dtype=np.int32)


def _masks(
    columns: Columns, rows: np.ndarray, owner: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions in the sequence and ids, (k, most) each, and where a row masks what is in no sequence."""
    positions = columns[layouts.MASKED_POSITIONS].take(rows, axis=0).astype(np.int64)
    ids = columns[layouts.MASKED_IDS].take(rows, axis=0)
    used = positions != 0  # position 0 is a [CLS], never masked: an empty slot
    beyond = used & ((positions < 0) | (positions >= owner.shape[1]))
    at = np.take_along_axis(owner, np.where(used & ~beyond, positions, 0), axis=1)
    stray = (beyond | (used & (at == 0))).any(axis=1)
    mine = used & (positions >= starts[:, None]) & (positions < (starts + lengths)[:, None])
    most = max(1, int(mine.sum(axis=1).max(initial=0)))
    order = np.argsort(~mine, axis=1, kind="stable")[:, :most]
    kept = np.take_along_axis(mine, order, axis=1)
    moved = np.where(kept, np.take_along_axis(positions, order, axis=1) - starts[:, None], 0)
    return moved.astype(np.int32), np.where(kept, np.take_along_axis(ids, order, axis=1), 0), stray
