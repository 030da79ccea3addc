"""Micro-batches of one fixed shape, for devices that compile every shape anew (Gaudi) and for CUDA graphs.

A row has K slots for sequences that lie in it end to end, and one more slot for the padding behind them, which is a
sequence of its own: nothing attends to it and it has no label.  R rows of L tokens, T = R * L, B = R * (K + 1) slots,
M places for masked tokens: the same numbers in every micro-batch of a run, whatever is in it.  A row has M / R of the
places; masked tokens beyond them are left out, so that no row can come that does not fit.
"""

from typing import NamedTuple

import numpy as np

from bert_pytorch.data.dealing import num_micro_batches, share_of
from bert_pytorch.data.masking import MaskingPolicy, masked_counts
from bert_pytorch.data.row_packing import RowPlan
from bert_pytorch.records import IGNORED_LABEL, MicroBatch

_FEWEST_SPECIAL = 2
"""[CLS] and the last [SEP] are never masked."""


class RowShape(NamedTuple):
    """The shape of every micro-batch of a run."""

    rows: int
    """R, rows of a micro-batch."""
    length: int
    """L, tokens of a row."""
    slots: int
    """K, sequences of a row at most."""
    masked_per_row: int
    """M / R, places for masked tokens in a row."""
    pad_id: int
    """Token that fills a row up."""

    @property
    def masked(self) -> int:
        """M, places for masked tokens in a micro-batch."""
        return self.rows * self.masked_per_row

    def describe(self) -> str:
        """Say in one line what it is."""
        return (
            f"{self.rows} rows of {self.length} tokens, each of at most {self.slots} sequences; "
            f"{self.masked} places for masked tokens"
        )


class RowPlaces(NamedTuple):
    """Where the sequences of a micro-batch lie, n of them."""

    rows: np.ndarray
    """int64 (n,), the row of each in its micro-batch, less than R."""
    slots: np.ndarray
    """int64 (n,), its place in the row, less than K; no two sequences share both."""

    def take(self, chosen: np.ndarray) -> "RowPlaces":
        """Return those chosen by index or mask."""
        return RowPlaces(self.rows[chosen], self.slots[chosen])


def most_masked(length: int, slots: int, policy: MaskingPolicy, *, static: bool) -> int:
    """Return how many masked tokens a row can have at most: the exact maximum over all ways to fill it.

    Two kinds of masks may come to more: whole words, where a sequence consists of words longer than its share, and
    those of shards that were masked at a higher rate.  `lay_in_rows` leaves the surplus out.

    Args:
        length: tokens of a row.
        slots: sequences of a row at most.
        policy: how sequences are masked.
        static: whether masks may come with the shards: NVIDIA's count the special tokens of a sequence as well.
    """
    sizes = np.arange(length + 1)
    of_one = masked_counts(sizes if static else np.maximum(sizes - _FEWEST_SPECIAL, 0), policy)
    best = np.zeros(length + 1, np.int64)  # by the tokens that are left for them
    for _ in range(slots):
        more = best.copy()
        for size in range(1, length + 1):
            np.maximum(more[size:], best[: length + 1 - size] + of_one[size], out=more[size:])
        if np.array_equal(more, best):
            break
        best = more
    return int(best[length])


def deal_rows(plan: RowPlan, sizes: tuple[int, ...], rank: int) -> list[tuple[np.ndarray, RowPlaces]]:
    """Share planned rows among ranks, and a rank's rows among micro-batches of as many rows as its size.

    Every rank gets as many micro-batches, at least one; what is missing in the last ones are empty rows.

    Args:
        plan: rows of all samples of an update.
        sizes: rows of a micro-batch of each rank.
        rank: this rank.

    Returns:
        For each micro-batch its samples' numbers in the update, int64, ordered by place, and their places.
    """
    count = max(1, num_micro_batches(plan.num_rows, sizes))
    order = np.full(plan.num_rows, -1)
    shared = share_of(plan.num_rows, sizes, rank)
    order[shared] = np.arange(len(shared))
    mine = np.flatnonzero(order[plan.rows] >= 0)
    mine = mine[np.lexsort((plan.slots[mine], plan.rows[mine]))]
    turns, within = np.divmod(order[plan.rows[mine]], max(sizes[rank], 1))
    edges = np.searchsorted(turns, np.arange(count + 1))
    stretches = (slice(edges[turn], edges[turn + 1]) for turn in range(count))
    return [(mine[part], RowPlaces(within[part], plan.slots[mine[part]])) for part in stretches]


class _Masks(NamedTuple):
    """Masked tokens of rows, and their labels."""

    places: np.ndarray
    """int64 (k,), increasing, places in the R * L tokens."""
    labels: np.ndarray
    """int64 (k,), what stood there."""

    def take(self, chosen: np.ndarray) -> "_Masks":
        return _Masks(self.places[chosen], self.labels[chosen])


def lay_in_rows(batch: MicroBatch, places: RowPlaces, shape: RowShape) -> MicroBatch:
    """Bring a packed micro-batch into fixed form.

    Where a row has more masked tokens than places, its last ones are left out: they are again what they were before
    masking, and have no label.  Neighbours that are masked together stay together, so that words stay whole; only a
    row that begins with more of them than it has places for keeps the first ones.  A row's places depend on nothing
    but the row, so that ranks and the size of micro-batches change nothing.

    Args:
        batch: packed, of n sequences in any order; none is a valid choice.
        places: of its sequences.
        shape: of the result.
    """
    lengths = np.diff(batch.cu_seqlens)
    sizes = np.zeros((shape.rows, shape.slots + 1), np.int64)
    sizes[places.rows, places.slots] = lengths
    sizes[:, -1] = shape.length - sizes.sum(axis=1)
    assert sizes.min() >= 0, "a row has more tokens than it has room for"
    cu_seqlens = np.zeros(sizes.size + 1, batch.cu_seqlens.dtype)
    np.cumsum(sizes, out=cu_seqlens[1:])
    slots = places.rows * (shape.slots + 1) + places.slots
    to = np.arange(len(batch.input_ids)) + np.repeat(cu_seqlens[slots] - batch.cu_seqlens[:-1], lengths)

    tokens = shape.rows * shape.length
    restarts = np.repeat(cu_seqlens[:-1], sizes.ravel())
    real = np.zeros(sizes.size, bool)
    real[slots] = lengths > 0
    masked = to[batch.masked_positions]
    by_place = np.argsort(masked)
    masks = _Masks(masked[by_place], batch.labels[by_place])
    fits = _fitting(masks.places, shape)
    kept, surplus = masks.take(fits), masks.take(~fits)
    input_ids = _spread(batch.input_ids, to, tokens, shape.pad_id)
    input_ids[surplus.places] = surplus.labels
    pairs = batch.next_sentence_labels
    return MicroBatch(
        input_ids=input_ids,
        token_type_ids=_spread(batch.token_type_ids, to, tokens, 0),
        position_ids=(np.arange(tokens) - restarts).astype(batch.position_ids.dtype),
        cu_seqlens=cu_seqlens,
        masked_positions=_spread(kept.places, np.arange(len(kept.places)), shape.masked, 0),
        labels=_spread(kept.labels, np.arange(len(kept.places)), shape.masked, IGNORED_LABEL),
        next_sentence_labels=None if pairs is None else _spread(pairs, slots, sizes.size, IGNORED_LABEL),
        row_length=shape.length,
        is_sequence=real,
    )


def _fitting(masked: np.ndarray, shape: RowShape) -> np.ndarray:
    """Tell which masked tokens their rows have places for, bool (k,); arguments as `_Masks.places`."""
    rows = masked // shape.length
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    fits = rank < shape.masked_per_row
    if fits.all():
        return fits
    begins = np.append(True, np.diff(masked) != 1)  # [CLS] is never masked, so that no run spans sequences
    firsts, run = np.flatnonzero(begins), np.cumsum(begins) - 1
    whole = np.logical_and.reduceat(fits, firsts) | (rank[firsts] == 0)
    return fits & whole[run]


def no_sequences(*, next_sentence: bool) -> MicroBatch:
    """Return a packed micro-batch of nothing: in fixed form, rows of padding only."""
    none, wide = np.zeros(0, np.int32), np.zeros(0, np.int64)
    return MicroBatch(none, none, none, np.zeros(1, np.int32), wide, wide, wide if next_sentence else None)


def _spread(values: np.ndarray, to: np.ndarray, size: int, otherwise: int) -> np.ndarray:
    spread = np.full(size, otherwise, values.dtype)
    spread[to] = values
    return spread
