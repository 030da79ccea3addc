"""Putting sequences of many lengths into rows of one length: longest first, on the histogram of lengths.

As Krell et al. 2021 (arXiv 2107.02027) pack the histogram instead of the sequences, so that the cost follows the number
of distinct lengths; a row begins with the longest sequence left and is filled by those that make it exactly full, where
there are such.
"""

from typing import NamedTuple

import numpy as np


class RowPlan(NamedTuple):
    """Where each of n sequences goes."""

    rows: np.ndarray
    """int64 (n,), from 0; every row has at least one."""
    slots: np.ndarray
    """int64 (n,), which of its row's sequences it is, from 0 without gaps."""
    num_rows: int


def pack_lengths(lengths: np.ndarray, row_length: int, max_sequences: int) -> RowPlan:
    """Put each sequence into one row.

    Args:
        lengths: int (n,), each from 1 to `row_length`.
        row_length: tokens that a row holds.
        max_sequences: sequences that a row holds.
    """
    left = np.bincount(lengths, minlength=row_length + 1)
    by_length = np.argsort(lengths, kind="stable")
    next_of = np.cumsum(left) - left  # of each length, where its unplaced sequences begin in `by_length`
    plan = RowPlan(np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64), 0)
    num_rows, longest = 0, row_length
    while True:
        while longest and not left[longest]:
            longest -= 1
        if not longest:
            return plan._replace(num_rows=num_rows)
        pattern = [longest, *_fill(left, longest, row_length - longest, max_sequences - 1)]
        wanted = np.bincount(pattern, minlength=row_length + 1)
        used = np.flatnonzero(wanted)
        count = int((left[used] // wanted[used]).min())
        for slot, length in enumerate(pattern):
            placed = by_length[next_of[length] : next_of[length] + count]
            next_of[length] += count
            plan.rows[placed] = num_rows + np.arange(count)
            plan.slots[placed] = slot
        left[used] -= count * wanted[used]
        num_rows += count


def _fill(left: np.ndarray, taken: int, space: int, slots: int) -> list[int]:
    """Choose lengths for what is left of a row that begins with one sequence of `taken` tokens."""
    available = left[: space + 1].copy()
    if taken <= space:
        available[taken] -= 1
    chosen: list[int] = []
    while slots and space:
        fitting = np.flatnonzero(available[: space + 1] > 0)
        if not len(fitting):
            break
        if slots == 1 or fitting[-1] == space:
            return [*chosen, int(fitting[-1])]
        pair = _pair(available, fitting, space)
        if slots == 2 or sum(pair) == space:
            return [*chosen, *pair]
        largest = int(fitting[-1])
        available[largest] -= 1
        chosen.append(largest)
        space -= largest
        slots -= 1
    return chosen


def _pair(available: np.ndarray, fitting: np.ndarray, space: int) -> list[int]:
    """Return the one or two lengths that fill most of `space`."""
    partner = np.searchsorted(fitting, space - fitting, side="right") - 1  # the longest that fits beside each
    partner = np.where((partner >= 0) & (fitting[partner] == fitting) & (available[fitting] < 2), partner - 1, partner)
    sums = np.where(partner >= 0, fitting + fitting[partner], fitting)
    best = int(len(sums) - 1 - sums[::-1].argmax())  # of equals the one with the longest
    return [int(fitting[best])] + ([int(fitting[partner[best]])] if partner[best] >= 0 else [])
