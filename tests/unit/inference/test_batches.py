"""Packed batches by length: every sequence once, within the limit, with its own results."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.inference.batches import Runner, batches_of
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tasks.features import Features

LENGTHS = st.lists(st.integers(2, 20), max_size=30)


def features_of(lengths: list[int]) -> Features:
    rng = np.random.default_rng(0)
    return Features(
        input_ids=rng.integers(0, 1000, sum(lengths)).astype(np.int32),
        segment_b_starts=np.array([rng.integers(1, length + 1) for length in lengths], np.int32),
        cu_seqlens=np.cumsum([0, *lengths]).astype(np.int64),
        examples=np.arange(len(lengths), dtype=np.int32),
        labels=None,
    )


@given(LENGTHS, st.integers(1, 60))
def test_batches_hold_each_sequence_once_longest_first_and_no_more_than_fits(lengths: list[int], limit: int) -> None:
    batches = list(batches_of(np.array(lengths, np.int64), limit))
    together = [index for batch in batches for index in batch.tolist()]
    assert sorted(together) == list(range(len(lengths)))
    assert [lengths[index] for index in together] == sorted(lengths, reverse=True)
    sizes = [sum(lengths[index] for index in batch) for batch in batches]
    assert all(size <= limit or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
    firsts = [lengths[batch[0]] for batch in batches[1:]]
    assert all(size + first > limit for size, first in zip(sizes, firsts, strict=False))  # none could be larger


@given(LENGTHS, st.integers(1, 60))
def test_results_are_each_sequences_own(lengths: list[int], limit: int) -> None:
    features = features_of(lengths)
    runner = Runner(torch.device("cpu"), Precision("fp32", "", "cpu"), limit)
    tokens = runner.run(lambda batch: torch.stack([batch.input_ids, batch.position_ids], 1), features)
    firsts = runner.run(_first_tokens, features)
    for index, length in enumerate(lengths):
        own = features.input_ids[features.cu_seqlens[index] : features.cu_seqlens[index + 1]]
        assert firsts[index].tolist() == [own[0]]
        assert tokens[index].T.tolist() == [own.tolist(), list(range(length))]


def _first_tokens(batch: PackedBatch) -> torch.Tensor:
    return batch.input_ids[batch.cu_seqlens[:-1].long()].unsqueeze(1)
