"""Sizes of updates, and how their samples are shared: all of them once, as many micro-batches on every rank."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.data.batching import (
    deal_by_count,
    deal_by_tokens,
    deal_grouped_by_count,
    longest_at,
    sequences_in_budget,
    total_amount,
    update_size,
)
from bert_pytorch.data.config import BatchConfig

LENGTHS = st.lists(st.integers(5, 128), min_size=1, max_size=400)
WORLD = st.integers(1, 9)


def all_shares(deal: Callable[[int], list[np.ndarray]], size: int, world_size: int) -> list[list[np.ndarray]]:
    """Deal to every rank and check that all samples are taken once in as many micro-batches."""
    shares = [deal(rank) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    taken = [sample for share in shares for part in share for sample in part.tolist()]
    assert sorted(taken) == list(range(size))
    return shares


@given(st.integers(1, 5000), st.integers(1, 64), WORLD)
def test_micro_batches_by_count_differ_by_one_sample(size: int, local: int, world: int) -> None:
    for share in all_shares(lambda rank: deal_by_count(size, local, rank, world), size, world):
        sizes = [len(part) for part in share]
        assert max(sizes) <= local
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("size", "local", "world", "count"), [(65536, 96, 8, 86), (65536, 64, 8, 128), (5, 2, 1, 3)])
def test_the_forks_batch_of_65536_on_8_gpus_of_96_is_met_exactly(size: int, local: int, world: int, count: int) -> None:
    shares = all_shares(lambda rank: deal_by_count(size, local, rank, world), size, world)
    assert len(shares[0]) == count


@given(LENGTHS, st.integers(128, 2000), WORLD, st.booleans())
def test_micro_batches_by_tokens_keep_the_budget(lengths: list[int], most: int, world: int, grouped: bool) -> None:
    array = np.array(lengths, np.int32)
    shares = all_shares(lambda rank: deal_by_tokens(array, most, rank, world, grouped), len(lengths), world)
    assert max(int(array[part].sum()) for share in shares for part in share) <= most


def test_tokens_are_balanced_over_ranks_and_micro_batches() -> None:
    lengths = np.random.default_rng(0).integers(5, 512, 4096).astype(np.int32)
    for grouped in (False, True):
        shares = [deal_by_tokens(lengths, 16384, rank, 8, grouped) for rank in range(8)]
        sums = np.array([[lengths[part].sum() for part in share] for share in shares])
        assert len(shares[0]) <= -(-lengths.sum() // (8 * 16384)) + 1
        assert sums.max() / sums.mean() < 1.06
        assert (sums.max(axis=0) - sums.min(axis=0)).max() <= 512  # ranks wait for the slowest in each turn


@given(LENGTHS, st.integers(1, 40), WORLD)
def test_grouped_micro_batches_hold_neighbours_in_length(lengths: list[int], local: int, world: int) -> None:
    array = np.array(lengths, np.int32)
    shares = all_shares(lambda rank: deal_grouped_by_count(array, local, rank, world), len(lengths), world)
    turns = [np.concatenate([share[turn] for share in shares]) for turn in range(len(shares[0]))]
    spans = [(array[turn].min(), array[turn].max()) for turn in turns if len(turn)]
    assert all(later[1] <= earlier[0] for earlier, later in itertools.pairwise(spans))
    assert max(len(part) for share in shares for part in share) <= local


def test_a_batch_grows_linearly_and_stays() -> None:
    config = BatchConfig(global_batch_size=100, batch_ramp_updates=4, batch_ramp_start=20)
    sizes = [update_size(config, number).amount for number in range(7)]
    assert sizes == [20, 40, 60, 80, 100, 100, 100]
    assert total_amount(config, 7) == sum(sizes)
    assert total_amount(config, 3) == 120


def test_the_curriculum_grows_in_eights_to_the_full_length() -> None:
    config = BatchConfig(length_curriculum_updates=10, length_curriculum_start=16)
    found = [longest_at(config, number, 128) for number in range(12)]
    assert found[0] == 16
    assert found[-2:] == [128, 128]
    assert found == sorted(found)
    assert all(length % 8 == 0 for length in found)
    assert longest_at(BatchConfig(), 0, 128) == 128


@given(LENGTHS, st.integers(1, 3000))
def test_a_budget_takes_as_many_whole_sequences_as_fit(lengths: list[int], budget: int) -> None:
    count = sequences_in_budget(np.array(lengths), budget)
    assert count == 1 or sum(lengths[:count]) <= budget
    assert count == len(lengths) or sum(lengths[: count + 1]) > budget
