"""Micro-batches of one fixed shape, for devices that compile every shape anew (Gaudi) and for CUDA graphs.

A row has K slots for sequences that lie in it end to end, and one more slot for the padding behind them, which is a
sequence of its own: nothing attends to it and it has no label.  R rows of L tokens, T = R * L, B = R * (K + 1) slots,
M places for masked tokens: the same numbers in every micro-batch of a run, whatever is in it.
"""

from typing import NamedTuple

import numpy as np

from bert_pytorch.data.masking import MaskingPolicy, masked_counts
from bert_pytorch.data.row_packing import RowPlan
from bert_pytorch.errors import InputError
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
    masked: int
    """M, places for masked tokens in a micro-batch."""
    pad_id: int
    """Token that fills a row up."""

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

    Whole words may come to more where a sequence consists of words longer than its share; only rows that are at their
    maximum otherwise notice.

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


def deal_rows(plan: RowPlan, rows: int, rank: int, world_size: int) -> list[tuple[np.ndarray, RowPlaces]]:
    """Share planned rows among ranks in turn, and a rank's rows among micro-batches of `rows` rows each.

    Every rank gets as many micro-batches, at least one; what is missing in the last ones are empty rows.

    Args:
        plan: rows of all samples of an update.
        rows: R.
        rank: this rank.
        world_size: number of ranks.

    Returns:
        For each micro-batch its samples' numbers in the update, int64, ordered by place, and their places.
    """
    count = max(1, -(-plan.num_rows // (world_size * rows)))
    mine = np.flatnonzero(plan.rows % world_size == rank)
    mine = mine[np.lexsort((plan.slots[mine], plan.rows[mine]))]
    turns, within = np.divmod(plan.rows[mine] // world_size, rows)
    edges = np.searchsorted(turns, np.arange(count + 1))
    stretches = (slice(edges[turn], edges[turn + 1]) for turn in range(count))
    return [(mine[part], RowPlaces(within[part], plan.slots[mine[part]])) for part in stretches]


def lay_in_rows(batch: MicroBatch, places: RowPlaces, shape: RowShape) -> MicroBatch:
    """Bring a packed micro-batch into fixed form.

    Args:
        batch: packed, of n sequences in any order; none is a valid choice.
        places: of its sequences.
        shape: of the result.

    Raises:
        InputError: if more tokens are masked than there are places for, which only masks from shards or words can do.
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
    _refuse_surplus(batch, shape)
    by_place = np.argsort(masked)
    pairs = batch.next_sentence_labels
    return MicroBatch(
        input_ids=_spread(batch.input_ids, to, tokens, shape.pad_id),
        token_type_ids=_spread(batch.token_type_ids, to, tokens, 0),
        position_ids=(np.arange(tokens) - restarts).astype(batch.position_ids.dtype),
        cu_seqlens=cu_seqlens,
        masked_positions=_spread(masked[by_place], np.arange(len(masked)), shape.masked, 0),
        labels=_spread(batch.labels[by_place], np.arange(len(masked)), shape.masked, IGNORED_LABEL),
        next_sentence_labels=None if pairs is None else _spread(pairs, slots, sizes.size, IGNORED_LABEL),
        row_length=shape.length,
        is_sequence=real,
    )


def no_sequences(*, next_sentence: bool) -> MicroBatch:
    """Return a packed micro-batch of nothing: in fixed form, rows of padding only."""
    none, wide = np.zeros(0, np.int32), np.zeros(0, np.int64)
    return MicroBatch(none, none, none, np.zeros(1, np.int32), wide, wide, wide if next_sentence else None)


def _spread(values: np.ndarray, to: np.ndarray, size: int, otherwise: int) -> np.ndarray:
    spread = np.full(size, otherwise, values.dtype)
    spread[to] = values
    return spread


def _refuse_surplus(batch: MicroBatch, shape: RowShape) -> None:
    if len(batch.labels) <= shape.masked:
        return
    share = len(batch.labels) / len(batch.input_ids)
    raise InputError(
        f"--packing rows: found {len(batch.labels)} masked tokens for one micro-batch ({share:.0%} of its tokens), but "
        f"{shape.masked} places, which follow from --masked_token_fraction and --masked_tokens_per_seq. Give the "
        "fraction that the shards were masked with (static masks, --whole_word_masking: a higher one), or "
        "--packing tokens."
    )
