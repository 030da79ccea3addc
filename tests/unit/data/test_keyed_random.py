"""Subsets drawn from hashes: equal to a slow reading of the rule, exact in size, and all subsets alike."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.keyed_random import choose_subsets, mix, scaled, streams
from bert_pytorch.data.masking import sample_keys

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(value: int) -> int:
    """SplitMix64's output function, of one number."""
    value = (value + GOLDEN) & WORD
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & WORD
    return value ^ (value >> 31)


def chosen_by_reading(size: int, wanted: int, hashes: list[int]) -> list[int]:
    """The rule for one key: draw, and draw again what was taken before or is repeated later in the round."""
    pending, taken = hashes[: min(wanted, size - wanted)], set[int]()
    while pending:
        places = [(number >> 32) * size >> 32 for number in pending]
        lost = [place in taken or place in places[i + 1 :] for i, place in enumerate(places)]
        taken.update(places)
        pending = [mixed(number) for number, again in zip(pending, lost, strict=True) if again]
    kept = taken if 2 * wanted <= size else set(range(size)) - taken
    return sorted(kept)


def subsets(size: int, wanted: int, keys: np.ndarray) -> np.ndarray:
    """The subsets of many keys as rows (keys, wanted)."""
    wanteds = np.full(len(keys), wanted)
    found = choose_subsets(np.full(len(keys), size), wanteds, streams(keys, wanteds))
    return found.reshape(len(keys), wanted) - size * np.arange(len(keys))[:, None]


def chi_squared_is_usual(counts: np.ndarray, degrees: int) -> bool:
    """Whether the statistic of counts that should be equal is within 5 of its standard deviations."""
    expected = counts.sum() / counts.size
    return bool(abs(((counts - expected) ** 2 / expected).sum() - degrees) < 5 * math.sqrt(2 * degrees))


def test_mixing_is_that_of_the_published_generator() -> None:
    # The first outputs of SplitMix64 from state 1234567 (the vectors that Java's and Rust's implementations test with).
    state = np.array([(1234567 + GOLDEN * i) & WORD for i in range(3)], np.uint64)
    assert mix(state).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=200, deadline=None)
@given(
    drawn=st.lists(
        st.integers(0, 120).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))), min_size=1, max_size=8
    ),
    seed=st.integers(0, 2**40),
)
def test_subsets_are_those_of_a_slow_reading_of_the_rule(drawn: list[tuple[int, int]], seed: int) -> None:
    sizes, wanted = np.array(drawn, np.int64).T
    keys = sample_keys(seed, 0, np.arange(len(drawn)))
    found = choose_subsets(sizes, wanted, streams(keys, wanted)).tolist()
    expected, start = [], 0
    for (size, count), key in zip(drawn, keys.tolist(), strict=True):
        hashes = [mixed((key + number * GOLDEN) & WORD) for number in range(count)]
        chosen = chosen_by_reading(size, count, hashes)
        assert len(chosen) == count
        expected += [start + place for place in chosen]
        start += size
    assert found == expected


@pytest.mark.parametrize(("size", "wanted"), [(5, 1), (6, 2), (6, 3), (6, 4), (7, 6), (9, 3)])
def test_all_subsets_are_equally_likely(size: int, wanted: int) -> None:
    rows = subsets(size, wanted, sample_keys(11, 0, np.arange(60_000)))
    number_of = {subset: index for index, subset in enumerate(itertools.combinations(range(size), wanted))}
    counts = np.bincount([number_of[tuple(row)] for row in rows.tolist()], minlength=len(number_of))
    assert chi_squared_is_usual(counts, len(number_of) - 1)


@pytest.mark.parametrize("wanted", [15, 60])
def test_pairs_of_a_real_length_are_uniform(wanted: int) -> None:
    size, trials = 100, 30_000
    chosen = np.zeros((trials, size), np.float32)
    np.put_along_axis(chosen, subsets(size, wanted, sample_keys(5, 3, np.arange(trials))), 1, axis=1)
    together = (chosen.T @ chosen)[np.triu_indices(size, 1)].astype(float)
    share = wanted * (wanted - 1) / (size * (size - 1))
    z = (together - trials * share) / math.sqrt(trials * share * (1 - share))
    assert abs(z).max() < 5.5  # of 4,950 pairs: one in 5,000 by chance
    assert abs((z**2).mean() - 1) < 0.15
    alone = (chosen.sum(axis=0) - trials * wanted / size) / math.sqrt(trials * wanted / size * (1 - wanted / size))
    assert abs(alone).max() < 4.5


@pytest.mark.parametrize("other", ["next sample", "next epoch", "next seed"])
def test_subsets_of_neighbours_are_independent(other: str) -> None:
    size, wanted, trials = 120, 18, 30_000
    indices = np.arange(trials)
    keys = {
        "next sample": sample_keys(7, 0, indices + 1),
        "next epoch": sample_keys(7, 1, indices),
        "next seed": sample_keys(8, 0, indices),
    }[other]
    chosen = np.zeros((2, trials, size), bool)
    for side, of_side in zip(chosen, (sample_keys(7, 0, indices), keys), strict=True):
        np.put_along_axis(side, subsets(size, wanted, of_side), True, axis=1)
    common = (chosen[0] & chosen[1]).sum(axis=1)
    mean = wanted**2 / size  # hypergeometric
    variance = mean * (1 - wanted / size) * (size - wanted) / (size - 1)
    assert abs(common.mean() - mean) < 4.5 * math.sqrt(variance / trials)
    assert abs(common.var() / variance - 1) < 0.05


def test_scaled_hashes_reach_both_ends() -> None:
    hashes = np.array([0, WORD, 2**63], np.uint64)
    assert scaled(hashes, np.uint64(10)).tolist() == [0, 9, 5]
    assert scaled(hashes, np.array([1, 65536, 7], np.uint64)).tolist() == [0, 65535, 3]
    assert scaled(hashes, np.uint64(10)).dtype == np.int64
