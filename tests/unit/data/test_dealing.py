"""How samples are shared: all of them once, as many micro-batches on every rank, none larger than its rank's size."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.data.dealing import (
    budgets_of,
    deal_by_count,
    deal_by_tokens,
    deal_grouped_by_count,
    parse_sizes,
    round_of,
    smallest_budget,
    spell_sizes,
)

LENGTHS = st.lists(st.integers(5, 128), min_size=1, max_size=400)
LOCAL = st.integers(1, 64)
EVEN = st.tuples(LOCAL, st.integers(1, 9)).map(lambda drawn: (drawn[0],) * drawn[1])
UNEVEN = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(any).map(tuple)
SIZES = st.one_of(EVEN, UNEVEN)
"""Of ranks: all alike, or any, some of which take nothing."""


def all_shares(deal: Callable[[int], list[np.ndarray]], size: int, world_size: int) -> list[list[np.ndarray]]:
    """Deal to every rank and check that all samples are taken once in as many micro-batches."""
    shares = [deal(rank) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    taken = [sample for share in shares for part in share for sample in part.tolist()]
    assert sorted(taken) == list(range(size))
    return shares


@given(st.integers(1, 5000), SIZES)
def test_micro_batches_by_count_keep_their_ranks_size_and_are_as_few_as_can_be(
    size: int, sizes: tuple[int, ...]
) -> None:
    shares = all_shares(lambda rank: deal_by_count(size, sizes, rank), size, len(sizes))
    assert len(shares[0]) == -(-size // sum(sizes))
    for rank, share in enumerate(shares):
        counts = [len(part) for part in share]
        assert max(counts) <= sizes[rank]
        assert max(counts) - min(counts) <= 1


@given(st.integers(1, 5000), EVEN)
def test_equal_ranks_are_dealt_one_in_turn(size: int, sizes: tuple[int, ...]) -> None:
    for rank in range(len(sizes)):
        found = np.concatenate(deal_by_count(size, sizes, rank))
        assert found.tolist() == list(range(rank, size, len(sizes)))


@given(UNEVEN)
def test_a_round_deals_in_proportion_and_spreads_each_ranks_samples(sizes: tuple[int, ...]) -> None:
    dealt = round_of(sizes).tolist()
    counts = [dealt.count(rank) for rank in range(len(sizes))]
    assert [count * sum(sizes) for count in counts] == [size * len(dealt) for size in sizes]
    for rank, count in enumerate(counts):
        places = [place for place, owner in enumerate(dealt) if owner == rank]
        for turn, place in enumerate(places):  # the earliest place that its share allows, or a few more: one a rank
            assert turn * len(dealt) / count - len(sizes) <= place <= turn * len(dealt) / count + len(sizes)


def test_three_ranks_of_16_16_and_8_have_two_two_and_one_of_five() -> None:
    assert round_of((16, 16, 8)).tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(("size", "local", "world", "count"), [(65536, 96, 8, 86), (65536, 64, 8, 128), (5, 2, 1, 3)])
def test_the_forks_batch_of_65536_on_8_gpus_of_96_is_met_exactly(size: int, local: int, world: int, count: int) -> None:
    shares = all_shares(lambda rank: deal_by_count(size, (local,) * world, rank), size, world)
    assert len(shares[0]) == count


@given(LENGTHS, st.integers(128, 2000), SIZES, st.booleans())
def test_micro_batches_by_tokens_keep_their_ranks_budget(
    lengths: list[int], part: int, sizes: tuple[int, ...], grouped: bool
) -> None:
    array = np.array(lengths, np.int32)
    most = part * max(sizes) // math.gcd(*sizes)
    assert smallest_budget(most, sizes) == part
    shares = all_shares(
        lambda rank: deal_by_tokens(array, most, sizes, rank, grouped=grouped), len(lengths), len(sizes)
    )
    budgets = budgets_of(most, sizes)
    assert budgets.max() == most
    for rank, share in enumerate(shares):
        assert max(int(array[part].sum()) for part in share) <= budgets[rank]


def test_tokens_are_balanced_over_ranks_and_micro_batches() -> None:
    lengths = np.random.default_rng(0).integers(5, 512, 4096).astype(np.int32)
    for grouped in (False, True):
        shares = [deal_by_tokens(lengths, 16384, (1,) * 8, rank, grouped=grouped) for rank in range(8)]
        sums = np.array([[lengths[part].sum() for part in share] for share in shares])
        assert len(shares[0]) <= -(-lengths.sum() // (8 * 16384)) + 1
        assert sums.max() / sums.mean() < 1.06
        assert (sums.max(axis=0) - sums.min(axis=0)).max() <= 512  # ranks wait for the slowest in each turn


def test_tokens_of_uneven_ranks_are_balanced_by_their_sizes() -> None:
    lengths = np.random.default_rng(0).integers(5, 512, 4096).astype(np.int32)
    sizes = (8, 8, 4, 1)
    shares = [deal_by_tokens(lengths, 16384, sizes, rank, grouped=False) for rank in range(4)]
    sums = np.array([sum(int(lengths[part].sum()) for part in share) for share in shares])
    assert sums / sums.sum() == pytest.approx(np.array(sizes) / sum(sizes), rel=0.03)


@given(LENGTHS, SIZES)
def test_grouped_micro_batches_hold_neighbours_in_length(lengths: list[int], sizes: tuple[int, ...]) -> None:
    array = np.array(lengths, np.int32)
    shares = all_shares(lambda rank: deal_grouped_by_count(array, sizes, rank), len(lengths), len(sizes))
    turns = [np.concatenate([share[turn] for share in shares]) for turn in range(len(shares[0]))]
    spans = [(array[turn].min(), array[turn].max()) for turn in turns if len(turn)]
    assert all(later[1] <= earlier[0] for earlier, later in itertools.pairwise(spans))
    for rank, share in enumerate(shares):
        assert max(len(part) for part in share) <= sizes[rank]


@given(UNEVEN)
def test_sizes_are_read_as_they_are_spelled(sizes: tuple[int, ...]) -> None:
    assert parse_sizes(spell_sizes(sizes)) == sizes


def test_alike_neighbours_are_spelled_once() -> None:
    assert spell_sizes((16, 16, 8, 16)) == "16x2,8,16"
    assert parse_sizes("16x2,8,16") == (16, 16, 8, 16)
