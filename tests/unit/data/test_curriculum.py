"""Cutting sequences for the length curriculum, against a reference that does it token by token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.data.curriculum import cut_rows
from tests.support.sequence_rows import make_rows


def cut_slowly(
    tokens: list[int], border: int, masks: dict[int, int], longest: int
) -> tuple[list[int], int, dict[int, int]]:
    """Take tokens off the end of the longer segment, of B's where both are equal, until the sequence fits.

    Args:
        tokens: `[CLS] A [SEP] (B [SEP])`.
        border: where B begins; the number of tokens where there is no B.
        masks: original token of each masked position.
        longest: tokens afterwards.
    """
    a, b = list(range(1, border - 1)), list(range(border, len(tokens) - 1))
    ends = [border - 1, len(tokens) - 1] if border < len(tokens) else [border - 1]
    while len(a) + len(b) + len(ends) + 1 > longest:
        (a if len(a) > len(b) else b).pop()
    kept = [0, *a, ends[0], *b, *ends[1:]]
    return (
        [tokens[old] for old in kept],
        len(a) + 2,
        {kept.index(old): token for old, token in masks.items() if old in kept},
    )


@given(st.integers(5, 15), st.integers(1, 20), st.booleans(), st.sampled_from([0, 0, 3, 8]), st.integers(0, 99))
def test_rows_are_cut_as_token_by_token(longest: int, count: int, pairs: bool, slots: int, seed: int) -> None:
    rows = make_rows(count, 16, pairs, slots, seed)
    cut = cut_rows(rows, longest)
    assert cut.input_ids.shape == (count, longest)
    for row, (length, border) in enumerate(zip(rows.lengths.tolist(), rows.segment_b_starts.tolist(), strict=True)):
        masks = {}
        if rows.static_masks is not None:
            used = rows.static_masks.counts[row]
            masks = dict(
                zip(
                    rows.static_masks.positions[row, :used].tolist(),
                    rows.static_masks.token_ids[row, :used].tolist(),
                    strict=True,
                )
            )
        tokens, new_border, new_masks = cut_slowly(rows.input_ids[row, :length].tolist(), border, masks, longest)
        assert cut.lengths[row] == len(tokens) == min(length, longest)
        assert cut.input_ids[row].tolist() == tokens + [0] * (longest - len(tokens))
        assert cut.segment_b_starts[row] == new_border
        if cut.static_masks is not None:
            used = int(cut.static_masks.counts[row])
            positions = cut.static_masks.positions[row, :used].tolist()
            assert dict(zip(positions, cut.static_masks.token_ids[row, :used].tolist(), strict=True)) == new_masks
            assert positions == sorted(positions)
            assert not cut.static_masks.positions[row, used:].any()
    labels = (rows.next_sentence_labels, cut.next_sentence_labels)
    assert (labels[0] is None) == (labels[1] is None)
    assert labels[0] is None or np.array_equal(*labels)
