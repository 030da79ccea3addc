"""Which sequences share a row of fixed length: packing on the histogram of lengths, so that n costs next to nothing.

Heuristics after Krell et al. 2021 (Efficient Sequence Packing without Cross-contamination, arXiv 2107.02027), who
pack the histogram instead of the sequences; the one that needs the fewest rows wins:

best fit   longest sequences first, each into the fullest row that has room and a slot: wins where slots are many.
triples    the longest sequence left with the two that fill its row to the last token, of all such pairs the one with
           the most sequences left: wins where slots are few, since best fit uses them up on rows of two.
mixture    weights of all full rows of three that come closest to the histogram, rounded down; the rest as triples:
           sometimes a third of the padding of triples, for 60 ms, so only where sequences are many.
"""

from typing import NamedTuple

import numpy as np

_PAIR, _TRIPLE = 2, 3
_MANY_SEQUENCES, _LONGEST_MIXED = 10_000, 1024
"""From how many sequences on, and up to which row, a mixture is looked for: it has about L² / 12 kinds of rows."""
_WORTH_MIXING = 0.003
"""Share of padding from which on it is."""
_STEPS = 100


class RowPlan(NamedTuple):
    """A place for each of n sequences."""

    rows: np.ndarray
    """int64 (n,), the row of each sequence; rows are numbered by their first sequence."""
    slots: np.ndarray
    """int64 (n,), its place in the row, from 0, in the order of the sequences."""
    num_rows: int


class _Run(NamedTuple):
    """Consecutive rows, each of which takes one sequence of this length."""

    length: int
    first_row: int
    num_rows: int


class _Layout(NamedTuple):
    runs: list[_Run]
    num_rows: int


def pack_lengths(lengths: np.ndarray, row_length: int, max_sequences: int | None = None) -> RowPlan:
    """Plan rows for sequences; the same lengths give the same plan.

    Args:
        lengths: int (n,), tokens of each sequence.
        row_length: tokens of a row.
        max_sequences: most sequences of a row; None is as many as fit.

    Raises:
        ValueError: if a length is below 1 or above `row_length`, or `max_sequences` below 1.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= row_length):
        raise ValueError(f"lengths of {lengths.min()} to {lengths.max()} in rows of {row_length}")
    runs, num_rows = _lay_out(np.bincount(lengths, minlength=row_length + 1), row_length, max_sequences)
    by_length = np.argsort(-lengths, kind="stable")
    runs = sorted(runs, key=lambda run: -run.length)  # stable: runs of one length in the order they were planned
    counts = np.array([run.num_rows for run in runs], np.int64)
    firsts = np.array([run.first_row for run in runs], np.int64)
    rows = np.empty(len(lengths), np.int64)
    rows[by_length] = np.arange(len(lengths)) + np.repeat(firsts - (np.cumsum(counts) - counts), counts)
    return _numbered(rows, num_rows)


def rows_needed(histogram: np.ndarray, max_sequences: int | None = None) -> int:
    """Return how many rows `pack_lengths` takes.

    Args:
        histogram: int (L + 1,), sequences of each length from 0 to L, the length of a row; those of 0 need no room.
        max_sequences: most sequences of a row; None is as many as fit.
    """
    return _lay_out(np.asarray(histogram, np.int64), len(histogram) - 1, max_sequences).num_rows


def _numbered(rows: np.ndarray, num_rows: int) -> RowPlan:
    """Number rows and slots by the order of the sequences, whatever order they were planned in."""
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=num_rows)
    starts = np.cumsum(counts) - counts
    slots = np.empty_like(rows)
    slots[order] = np.arange(len(rows)) - starts[rows[order]]
    number = np.empty(num_rows, np.int64)
    number[np.argsort(order[starts])] = np.arange(num_rows)
    return RowPlan(number[rows], slots, num_rows)


def _lay_out(histogram: np.ndarray, row_length: int, max_sequences: int | None) -> _Layout:
    slots = row_length if max_sequences is None else max_sequences
    if slots < 1:
        raise ValueError(f"max_sequences {slots}, wanted 1 or more")
    best = _best_fit(histogram.tolist(), row_length, slots)
    if slots > _PAIR:
        best = min(best, _triples(histogram.copy(), row_length), key=lambda layout: layout.num_rows)
        tight = (1 - _WORTH_MIXING) * best.num_rows * row_length <= int(histogram @ np.arange(row_length + 1))
        if not tight and histogram.sum() >= _MANY_SEQUENCES and row_length <= _LONGEST_MIXED:
            best = min(best, _mixture(histogram, row_length), key=lambda layout: layout.num_rows)
    return best


def _best_fit(histogram: list[int], row_length: int, slots: int) -> _Layout:
    """Best-fit decreasing; rows with equal room and as many sequences are handled together."""
    runs: list[_Run] = []
    num_rows = 0
    open_rows: list[list[tuple[int, int, int]]] = [[] for _ in range(row_length + 1)]
    """By the room left: first row, rows, sequences in each."""
    rooms = 0  # a bit for each room that some open row has: the fullest row that fits is the lowest bit above

    for length in range(row_length, 0, -1):
        left = histogram[length]
        while left:
            fitting = rooms >> length
            room = length + (fitting & -fitting).bit_length() - 1 if fitting else row_length
            first, count, used = open_rows[room].pop() if fitting else (num_rows, left, 0)
            each = min(slots - used, room // length)
            full, rest = min(count, left // each), 0
            if full < count:
                rest = left - full * each
            taken = full + (rest > 0)
            for copies, start, many in ((each, first, full), (rest, first + full, min(rest, 1))):
                if many and copies:
                    runs += [_Run(length, start, many)] * copies
                    if used + copies < slots and room > copies * length:
                        open_rows[room - copies * length].append((start, many, used + copies))
                        rooms |= 1 << (room - copies * length)
                    left -= copies * many
            if not fitting:
                num_rows += taken
            elif taken < count:
                open_rows[room].append((first + taken, count - taken, used))
            if fitting and not open_rows[room]:
                rooms &= ~(1 << room)
    return _Layout(runs, num_rows)


def _triples(counts: np.ndarray, row_length: int) -> _Layout:
    """Fill rows to the last token with three sequences, or two; where none fill it, with the longest that fit.

    Args:
        counts: int64 (L + 1,), sequences of each length; used up.
        row_length: L.
    """
    runs: list[_Run] = []
    num_rows = 0
    for length in range(row_length, 0, -1):
        while counts[length]:
            counts[length] -= 1  # this one is placed: what goes with it is chosen among the others
            pattern = [length, *_companions(counts, row_length - length)]
            for other in pattern[1:]:
                counts[other] -= 1
            more = min(int(counts[other]) // pattern.count(other) for other in set(pattern))
            for other in pattern:
                counts[other] -= more
                runs.append(_Run(other, num_rows, 1 + more))
            num_rows += 1 + more
    return _Layout(runs, num_rows)


def _companions(counts: np.ndarray, room: int) -> list[int]:
    """Return the lengths of two sequences at most, for the room that the first one left."""
    half, odd = divmod(room, 2)
    if room >= _PAIR:
        # lengths half … 1 beside those that fill up, half … room − 1
        both = np.minimum(counts[half:0:-1], counts[half + odd : room])
        if not odd:
            both[0] = counts[half] // 2
        best = int(both.argmax())
        if both[best]:
            return [half + odd + best, half - best]
    found: list[int] = []
    while len(found) < _PAIR:
        fitting = np.flatnonzero(counts[1 : room + 1])
        fitting = fitting[counts[1 + fitting] > (1 + fitting == (found[0] if found else 0))]
        if not len(fitting):
            break
        found.append(1 + int(fitting[-1]))
        room -= found[-1]
    return found


def _mixture(histogram: np.ndarray, row_length: int) -> _Layout:
    """Weigh the kinds of full rows by Richardson's and Lucy's iteration (1972, 1974), which keeps weights above 0.

    Krell et al. solve the same equations by non-negative least squares, in 24 s.
    """
    long, middle = np.meshgrid(np.arange(row_length + 1), np.arange(row_length + 1), indexing="ij")
    short = row_length - long - middle
    kinds = np.stack([long, middle, short], axis=-1)[(long >= middle) & (middle >= short) & (short >= 0)]  # (k, 3)
    kinds = kinds[((histogram[kinds] > 0) | (kinds == 0)).all(axis=1)]
    if not len(kinds):
        return _triples(histogram.copy(), row_length)
    wanted = histogram.astype(np.float64)
    wanted[0] = 0
    places = (kinds > 0).sum(axis=1)
    weights = np.ones(len(kinds))
    for _ in range(_STEPS):
        weights *= _ratios(wanted, kinds, weights)[kinds].sum(axis=1) / places
    limits = np.minimum(_ratios(wanted, kinds, weights), 1)
    limits[0] = 1
    repeats = np.floor(weights * limits[kinds].min(axis=1)).astype(np.int64)

    used = np.bincount(kinds.ravel(), np.repeat(repeats, _TRIPLE), row_length + 1).astype(np.int64)
    used[0] = 0
    rest = _triples(histogram - used, row_length)
    firsts = rest.num_rows + np.cumsum(repeats) - repeats
    chosen = np.flatnonzero(repeats)
    runs = [
        _Run(length, first, many)
        for kind, first, many in zip(
            kinds[chosen].tolist(), firsts[chosen].tolist(), repeats[chosen].tolist(), strict=True
        )
        for length in kind
        if length
    ]
    return _Layout(rest.runs + runs, rest.num_rows + int(repeats.sum()))


def _ratios(wanted: np.ndarray, kinds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, by length, how many times as many sequences are wanted as the weights use; 0 where they use none."""
    used = np.bincount(kinds.ravel(), np.repeat(weights, _TRIPLE), len(wanted))
    return np.divide(wanted, used, out=np.zeros_like(used), where=used > 0)
