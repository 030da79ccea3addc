"""Small honest rows for tests of shards."""

import numpy as np

from bert_pytorch.records import SPECIAL_TOKENS, SequenceRows, StaticMasks, Vocabulary

WORDS = Vocabulary((*SPECIAL_TOKENS, *(f"w{index}" for index in range(95))), lowercase=True)


def make_rows(n: int, length: int = 16, pairs: bool = True, slots: int = 0, seed: int = 0) -> SequenceRows:
    """Make rows `[CLS] A [SEP] (B [SEP])`; with `slots` > 0 they carry static masks, the last row using all slots."""
    rng = np.random.default_rng(seed)
    input_ids = np.zeros((n, length), np.int32)
    lengths, starts = np.zeros(n, np.int32), np.zeros(n, np.int32)
    for row in range(n):
        size = length if row == n - 1 else int(rng.integers(6, length + 1))
        border = int(rng.integers(3, size - 2))
        words = rng.integers(5, 100, size)
        words[[0, size - 1]] = 2, 3
        if pairs:
            words[border - 1] = 3
        input_ids[row, :size], lengths[row] = words, size
        starts[row] = border if pairs else size
    masks = None
    if slots:
        positions, token_ids = np.zeros((n, slots), np.int32), np.zeros((n, slots), np.int32)
        counts = np.zeros(n, np.int32)
        for row in range(n):
            places = [p for p in range(1, lengths[row] - 1) if p != starts[row] - 1]
            count = min(slots, len(places)) if row == n - 1 else min(1 + row % slots, len(places))
            chosen = np.sort(rng.choice(places, count, replace=False))
            positions[row, :count], token_ids[row, :count], counts[row] = chosen, input_ids[row, chosen], count
            input_ids[row, chosen] = 4
        masks = StaticMasks(positions, token_ids, counts)
    return SequenceRows(input_ids, lengths, starts, (np.arange(n) % 2).astype(np.int8) if pairs else None, masks)


def split_rows(rows: SequenceRows, start: int, stop: int) -> SequenceRows:
    """Take the rows from `start` to `stop`, exclusive."""
    masks = rows.static_masks
    return SequenceRows(
        rows.input_ids[start:stop],
        rows.lengths[start:stop],
        rows.segment_b_starts[start:stop],
        None if rows.next_sentence_labels is None else rows.next_sentence_labels[start:stop],
        None if masks is None else type(masks)(*(column[start:stop] for column in masks)),
    )


def assert_same_rows(found: SequenceRows, wanted: SequenceRows, chosen: np.ndarray) -> None:
    """Assert that `found` is `wanted[chosen]`, field by field."""
    for name in ("input_ids", "lengths", "segment_b_starts", "next_sentence_labels"):
        one, other = getattr(found, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert np.array_equal(one, other[chosen]), name
            assert one.dtype == other.dtype, name
    assert (found.static_masks is None) == (wanted.static_masks is None)
    if found.static_masks is not None and wanted.static_masks is not None:
        for one, other in zip(found.static_masks, wanted.static_masks, strict=True):
            assert np.array_equal(one, other[chosen])
            assert one.dtype == np.int32
