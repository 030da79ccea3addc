"""Cutting long sequences for the length curriculum (Li et al. 2022, arXiv 2108.06084): both segments keep their ends.

Letters as in `records`; a sequence `[CLS] A [SEP] B [SEP]` has a tokens in A and b in B.
"""

import numpy as np

from bert_pytorch.records import SequenceRows, StaticMasks


def cut_rows(rows: SequenceRows, longest: int) -> SequenceRows:
    """Cut sequences of more than `longest` tokens: the longer segment gives first, and gives its last tokens.

    Masks on tokens that are cut away go with them.

    Args:
        rows: n rows of length L, L > longest.
        longest: tokens of a sequence afterwards, at least 5.

    Returns:
        n rows of length `longest`.
    """
    lengths, starts = rows.lengths.astype(np.int64), rows.segment_b_starts.astype(np.int64)
    has_b = starts < lengths
    a, b = starts - 2, np.where(has_b, lengths - starts - 1, 0)
    room = longest - np.where(has_b, 3, 2)
    kept_a = np.minimum(a, np.maximum(room - b, -(-room // 2)))
    kept_b = np.minimum(b, room - kept_a)
    ends = kept_a + kept_b + np.where(has_b, 3, 2)  # the new lengths: `longest` wherever something is cut

    columns = np.arange(longest)
    source = columns + np.where(columns > kept_a[:, None], (a - kept_a)[:, None], 0)
    source += np.where((columns == ends[:, None] - 1) & has_b[:, None], (b - kept_b)[:, None], 0)
    return SequenceRows(
        input_ids=np.take_along_axis(rows.input_ids, source, axis=1),
        lengths=ends.astype(np.int32),
        segment_b_starts=np.where(has_b, kept_a + 2, ends).astype(np.int32),
        next_sentence_labels=rows.next_sentence_labels,
        static_masks=None if rows.static_masks is None else _moved(rows.static_masks, a, kept_a, kept_b),
    )


def _moved(masks: StaticMasks, a: np.ndarray, kept_a: np.ndarray, kept_b: np.ndarray) -> StaticMasks:
    """Move masks with their tokens and drop those of tokens that are gone; what stays keeps its order."""
    positions = masks.positions.astype(np.int64)
    a, kept_a, kept_b = a[:, None], kept_a[:, None], kept_b[:, None]
    used = np.arange(positions.shape[1]) < masks.counts[:, None]
    in_a = used & (positions <= kept_a)
    in_b = used & (positions > a + 1) & (positions - a - 1 <= kept_b)
    keep = in_a | in_b
    moved = np.where(in_b, positions - (a - kept_a), positions)
    order = np.argsort(~keep, axis=1, kind="stable")
    keep = np.take_along_axis(keep, order, axis=1)
    return StaticMasks(
        np.where(keep, np.take_along_axis(moved, order, axis=1), 0).astype(np.int32),
        np.where(keep, np.take_along_axis(masks.token_ids, order, axis=1), 0).astype(np.int32),
        keep.sum(axis=1, dtype=np.int32),
    )
