"""Joining packed batches and cutting them apart."""

import itertools

import numpy as np
from hypothesis import given
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
