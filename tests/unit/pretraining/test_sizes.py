"""Sizes of ranks by their measured speed, and what is told of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.pretraining.sizes import describe_sizes, sizes_by_speed


def test_ranks_half_as_fast_have_half_the_size() -> None:
    assert sizes_by_speed([400.0, 400.0, 200.0], 16) == (16, 16, 8)


def test_what_differs_by_the_noise_of_measuring_has_equal_sizes() -> None:
    assert sizes_by_speed([100.0, 99.0, 104.0, 98.5], 96) == (96, 96, 96, 96)


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=9), st.integers(1, 512))
def test_the_fastest_has_all_of_it_none_has_nothing_and_none_waits_longer_than_an_eighth(
    speeds: list[float], largest: int
) -> None:
    sizes = sizes_by_speed(speeds, largest)
    assert sizes[speeds.index(max(speeds))] == largest
    assert min(sizes) >= 1
    if largest % 8 == 0:
        for size, speed in zip(sizes, speeds, strict=True):
            assert size == pytest.approx(largest * speed / max(speeds), abs=max(largest / 16, 1) * 1.0001)


def test_machines_are_told_with_their_ranks() -> None:
    assert describe_sizes(["a", "a", "b"], [16, 16, 8]) == "16x2 on a (ranks 0 to 1); 8 on b (rank 2)"
