"""Packed micro-batches: equal to a slow reading row by row, joined and cut apart."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.masking import MaskingConfig, policy_for, sample_keys
from bert_pytorch.data.packing import join_batches, masked_batch, split_batch
from bert_pytorch.records import MicroBatch
from tests.support.sequence_rows import WORDS, make_rows, split_rows

SPECIAL = np.isin(np.arange(len(WORDS.tokens)), WORDS.structural_ids)
POLICY = policy_for(MaskingConfig(), WORDS)


def assert_same(found: MicroBatch, wanted: MicroBatch) -> None:
    for name, one, other in zip(MicroBatch._fields, found, wanted, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            assert np.array_equal(one, other), name
            assert one.dtype == other.dtype, name


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 9),
    length=st.sampled_from([8, 16, 255, 256, 300]),
    pairs=st.booleans(),
    slots=st.sampled_from([0, 0, 3]),
    separators=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 299)), max_size=4),
    seed=st.integers(0, 1000),
)
def test_packed_rows_are_those_of_a_slow_reading_row_by_row(
    count: int, length: int, pairs: bool, slots: int, separators: list[tuple[int, int]], seed: int
) -> None:
    whole = make_rows(max(count, 1), length, pairs=pairs, slots=slots, seed=seed)
    if not slots:
        for row, place in separators:  # FULL-SENTENCES has separators within a segment
            whole.input_ids[row % len(whole.lengths), 1 + place % (whole.lengths[row % len(whole.lengths)] - 2)] = 3
    rows = split_rows(whole, 0, count)
    policy = None if slots else POLICY
    batch = masked_batch(rows, sample_keys(3, 0, np.arange(count)), policy, SPECIAL, next_sentence=pairs)

    ids, types, positions, starts = [], [], [], [0]
    for row, size, start in zip(rows.input_ids.tolist(), rows.lengths, rows.segment_b_starts, strict=True):
        ids += row[:size]
        types += [int(place >= start) for place in range(size)]
        positions += list(range(size))
        starts.append(len(ids))
    assert batch.token_type_ids.tolist() == types
    assert batch.position_ids.tolist() == positions
    assert batch.cu_seqlens.tolist() == starts
    owners = np.searchsorted(starts, batch.masked_positions, side="right") - 1
    assert (np.diff(batch.masked_positions) > 0).all()
    if slots:
        assert rows.static_masks is not None
        masks = list(zip(starts, *rows.static_masks, strict=False))
        assert batch.input_ids.tolist() == ids
        places = [start + place for start, slot, _, used in masks for place in slot[:used]]
        assert batch.masked_positions.tolist() == places
        assert batch.labels.tolist() == [token for _, _, tokens, used in masks for token in tokens[:used]]
    else:
        restored = batch.input_ids.copy()
        restored[batch.masked_positions] = batch.labels
        assert restored.tolist() == ids
        assert not SPECIAL[batch.labels].any()
        words = [sum(not SPECIAL[token] for token in ids[a:b]) for a, b in itertools.pairwise(starts)]
        expected = [min(80, max(1, round(0.15 * n)), n) for n in words]
        assert np.bincount(owners, minlength=count).tolist() == expected
    kinds = [array.dtype for array in batch[:6] if array is not None]
    assert kinds == [np.int32] * 4 + [np.int64] * 2
    assert (batch.next_sentence_labels is None) == (not pairs)
    if pairs and rows.next_sentence_labels is not None and batch.next_sentence_labels is not None:
        assert batch.next_sentence_labels.tolist() == rows.next_sentence_labels.tolist()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.booleans())
def test_parts_made_together_are_those_made_one_by_one(sizes: list[int], pairs: bool) -> None:
    rows = make_rows(sum(sizes), pairs=pairs)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    keys = sample_keys(3, 0, np.arange(sum(sizes)))
    whole = masked_batch(rows, keys, POLICY, SPECIAL, next_sentence=pairs)
    one_by_one = [
        masked_batch(split_rows(rows, a, b), keys[a:b], POLICY, SPECIAL, next_sentence=pairs)
        for a, b in itertools.pairwise(edges)
    ]
    assert_same(join_batches(one_by_one), whole)
    for found, wanted in zip(split_batch(whole, sizes), one_by_one, strict=True):
        assert_same(found, wanted)
