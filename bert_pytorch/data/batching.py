"""How many samples an update takes, and how they are shared among ranks and micro-batches.

Everything is a pure function of (position, number of the update): the same on every rank, however many there are, so
that no rank takes a step more than another.  A_r micro-batches are as many on every rank; one may be empty.
"""

import itertools
from typing import NamedTuple

import numpy as np

from bert_pytorch.data.config import BatchConfig
from bert_pytorch.errors import ConfigError


class UpdateSize(NamedTuple):
    """The size of one update over all ranks."""

    amount: int
    """Sequences or tokens."""
    in_tokens: bool
    """Whether `amount` is the most tokens, else the number of sequences."""


def update_size(config: BatchConfig, number: int) -> UpdateSize:
    """Return the size of update `number` of a phase, from 0."""
    in_tokens = config.global_batch_tokens is not None
    full = config.global_batch_tokens or config.global_batch_size
    if number >= config.batch_ramp_updates:
        return UpdateSize(full, in_tokens)
    grown = (full - config.batch_ramp_start) * number // config.batch_ramp_updates
    return UpdateSize(config.batch_ramp_start + grown, in_tokens)


def describe_update(config: BatchConfig) -> str:
    """Say in a few words how large an update is."""
    full = update_size(config, config.batch_ramp_updates)
    words = f"at most {full.amount} tokens each" if full.in_tokens else f"{full.amount} sequences each"
    if not config.batch_ramp_updates:
        return words
    return f"{words}, growing from {config.batch_ramp_start} over the first {config.batch_ramp_updates} updates"


def total_amount(config: BatchConfig, updates: int) -> int:
    """Return the sequences or tokens of the first updates of a phase together."""
    ramp = min(updates, config.batch_ramp_updates)
    full = update_size(config, config.batch_ramp_updates).amount
    return sum(update_size(config, number).amount for number in range(ramp)) + full * (updates - ramp)


def refuse_small_budgets(sequence_length: int, **budgets: int | None) -> None:
    """Raise `ConfigError` where a budget of tokens, by the name of its flag, has no room for a sequence of the set."""
    problems = [
        f"--{name}: found {found}, wanted at least {sequence_length}, the length of the corpus's sequences."
        for name, found in budgets.items()
        if found is not None and found < sequence_length
    ]
    if problems:
        raise ConfigError("a budget of tokens", problems)


def rows_of_micro_batch(config: BatchConfig, row_length: int) -> int:
    """Return the rows of every micro-batch with --packing rows."""
    return config.local_batch_size if config.max_tokens is None else config.max_tokens // row_length


def longest_at(config: BatchConfig, number: int, sequence_length: int) -> int:
    """Return the tokens at most of a sequence in update `number`: a multiple of 8 on the way (Li et al. 2022)."""
    if number >= config.length_curriculum_updates:
        return sequence_length
    start = min(config.length_curriculum_start, sequence_length)
    grown = (sequence_length - start) * number // config.length_curriculum_updates
    return max(start, (start + grown) // 8 * 8)


def sequences_in_budget(lengths: np.ndarray, budget: int) -> int:
    """Count how many of the first sequences fit into a budget of tokens; at least one.

    Args:
        lengths: int (k,), in the order of the stream.
        budget: tokens.
    """
    return max(1, int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), budget, side="right")))


def deal_by_count(size: int, local_batch_size: int, rank: int, world_size: int) -> list[np.ndarray]:
    """Share samples among ranks in turn, and a rank's share among micro-batches that differ by at most one sample.

    Where a share has fewer samples than micro-batches, one is empty and that rank takes part with nothing to add.

    Args:
        size: samples of the update over all ranks.
        local_batch_size: the most samples of one micro-batch.
        rank: this rank.
        world_size: number of ranks.

    Returns:
        For each micro-batch its samples' numbers in the update, int64.
    """
    mine = np.arange(rank, size, world_size)
    count = _micro_batches(size, local_batch_size, world_size)
    bounds = [len(mine) * i // count for i in range(count + 1)]
    return [mine[start:stop] for start, stop in itertools.pairwise(bounds)]


def deal_by_tokens(lengths: np.ndarray, max_tokens: int, rank: int, world_size: int, grouped: bool) -> list[np.ndarray]:
    """Share samples so that ranks and micro-batches hold about equally many tokens, each at most `max_tokens`.

    Args:
        lengths: int (n,), tokens of each sample of the update, each at most `max_tokens`.
        max_tokens: the most tokens of one micro-batch.
        rank: this rank.
        world_size: number of ranks.
        grouped: whether a micro-batch shall hold samples of similar lengths, else of all lengths.

    Returns:
        For each micro-batch its samples' numbers in the update, int64.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    count = max(1, -(-int(lengths.sum(dtype=np.int64)) // (world_size * max_tokens)))
    while True:
        bins = _grouped_bins(lengths[order], count, world_size) if grouped else _snake(len(order), count * world_size)
        fullest = np.bincount(bins, lengths[order], count * world_size).max()
        if fullest <= max_tokens:
            return [order[bins == turn * world_size + rank] for turn in range(count)]
        count += 1


def deal_grouped_by_count(lengths: np.ndarray, local_batch_size: int, rank: int, world_size: int) -> list[np.ndarray]:
    """Share samples as `deal_by_count` does, but a micro-batch holds samples of similar lengths, on all ranks."""
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    count = _micro_batches(len(order), local_batch_size, world_size)
    bounds = [len(order) * i // count for i in range(count + 1)]
    turns = (order[start:stop] for start, stop in itertools.pairwise(bounds))
    return [turn[_snake(len(turn), world_size) == rank] for turn in turns]


def _micro_batches(size: int, local_batch_size: int, world_size: int) -> int:
    largest_share = -(-size // world_size)
    return -(-largest_share // local_batch_size)


def _snake(size: int, bins: int) -> np.ndarray:
    """Deal sorted items there and back again, 0 … b-1, b-1 … 0, which keeps sums close: the bin of each, int64."""
    turn, place = np.divmod(np.arange(size), bins)
    return np.where(turn % 2, bins - 1 - place, place)


def _grouped_bins(lengths: np.ndarray, count: int, world_size: int) -> np.ndarray:
    """Cut sorted samples into `count` stretches of about equal tokens, and each among the ranks: bins, int64 (n,)."""
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    turns = np.minimum(before * count // max(int(lengths.sum(dtype=np.int64)), 1), count - 1)
    firsts = np.searchsorted(turns, np.arange(count))
    within = np.arange(len(lengths)) - firsts[turns]
    turn, place = np.divmod(within, world_size)
    return turns * world_size + np.where(turn % 2, world_size - 1 - place, place)
