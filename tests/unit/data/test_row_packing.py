"""Rows of fixed length: every sequence once, no row too full, and as few rows as a slow search or theory allows."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_pytorch.data.row_packing import pack_lengths, rows_needed
from tests.support.lengths import best_fit, wikipedia_histogram


def wikipedia_like(n: int) -> np.ndarray:
    """Lengths in rows of 512 as all of Wikipedia has them, in no order."""
    return np.random.default_rng(3).permutation(np.repeat(np.arange(513), wikipedia_histogram(n)))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 24), max_size=60), st.one_of(st.none(), st.integers(1, 25)))
@example([], None)
@example([24] * 5, 3)
@example([1] * 49, None)
def test_every_sequence_has_one_place_and_no_row_is_too_full(lengths: list[int], most: int | None) -> None:
    plan = pack_lengths(np.array(lengths, np.int64), 24, most)
    rows: dict[int, list[int]] = {}
    for index, (row, slot) in enumerate(zip(plan.rows.tolist(), plan.slots.tolist(), strict=True)):
        rows.setdefault(row, []).append(index)
        assert slot == len(rows[row]) - 1  # slots follow the order of the sequences, none is empty
    assert sorted(rows) == list(range(plan.num_rows))
    assert [members[0] for _, members in sorted(rows.items())] == sorted(members[0] for members in rows.values())
    for members in rows.values():
        assert sum(lengths[index] for index in members) <= 24
        assert len(members) <= (most or 24)
    assert plan.num_rows == rows_needed(np.bincount(lengths, minlength=25), most)
    assert plan.num_rows <= best_fit(lengths, 24, most or 24)


def fewest_rows(lengths: list[int], size: int, most: int) -> int:
    """The optimum, by trying everything."""
    best = len(lengths)

    def place(index: int, rows: list[tuple[int, int]]) -> None:
        nonlocal best
        if len(rows) >= best:
            return
        if index == len(lengths):
            best = len(rows)
            return
        for place_, (room, slots) in enumerate(rows):
            if room >= lengths[index] and slots:
                place(index + 1, [*rows[:place_], (room - lengths[index], slots - 1), *rows[place_ + 1 :]])
        place(index + 1, [*rows, (size - lengths[index], most - 1)])

    place(0, [])
    return best


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 4))
def test_few_sequences_are_within_one_row_of_the_optimum(lengths: list[int], most: int) -> None:
    assert pack_lengths(np.array(lengths), 12, most).num_rows <= fewest_rows(lengths, 12, most) + 1


def test_half_full_rows_of_three_waste_less_than_one_per_cent() -> None:
    lengths = wikipedia_like(100_000)
    assert 0.49 < lengths.mean() / 512 < 0.51
    for most in (3, 8, None):
        plan = pack_lengths(lengths, 512, most)
        assert 1 - lengths.sum() / (plan.num_rows * 512) < 0.01, most


def test_the_same_lengths_give_the_same_plan_fast_enough_to_be_made_for_every_batch() -> None:
    lengths = wikipedia_like(1000)
    started = time.perf_counter()
    plans = [pack_lengths(lengths, 512, 3) for _ in range(20)]
    assert (time.perf_counter() - started) / 20 < 0.1  # 5 ms on an idle core
    assert all(np.array_equal(plan.rows, plans[0].rows) for plan in plans)


def test_what_cannot_be_packed_is_refused() -> None:
    for lengths, size, most in (([0], 8, 3), ([9], 8, 3), ([1], 8, 0)):
        with pytest.raises(ValueError, match=r"lengths|max_sequences"):
            pack_lengths(np.array(lengths), size, most)
