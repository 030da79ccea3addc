"""How many samples an update takes, how long they may be, and how many of them fit into a micro-batch of each rank.

Everything is a pure function of the configuration and the number of the update: the same on every rank, so that no rank
takes a step more than another.
"""

from typing import NamedTuple

import numpy as np

from bert_pytorch.data.config import MEASURE, BatchConfig
from bert_pytorch.data.dealing import budgets_of, parse_sizes, smallest_budget
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


def sizes_of_ranks(config: BatchConfig, world_size: int) -> tuple[int, ...]:
    """Return the most sequences of a micro-batch of each rank (with --packing rows: rows; with --max_tokens: shares).

    Where they are still to be measured, every rank has the size of the fastest.

    Raises:
        ConfigError: if --local_batch_sizes names another number of ranks.
    """
    if config.local_batch_sizes in (None, MEASURE):
        return (config.local_batch_size,) * world_size
    assert config.local_batch_sizes is not None
    sizes = parse_sizes(config.local_batch_sizes)
    if len(sizes) != world_size:
        problem = (
            f"found {len(sizes)} sizes ({config.local_batch_sizes}) for {world_size} ranks, wanted one for each, in "
            "their order. Give as many, or --local_batch_sizes measure, which fits any number."
        )
        raise ConfigError("--local_batch_sizes", [problem])
    return sizes


def rows_of_ranks(config: BatchConfig, row_length: int, world_size: int) -> tuple[int, ...]:
    """Return the rows of every micro-batch of each rank with --packing rows."""
    sizes = sizes_of_ranks(config, world_size)
    if config.max_tokens is None:
        return sizes
    return tuple((budgets_of(config.max_tokens, sizes) // row_length).tolist())


def refuse_small_budgets(config: BatchConfig, sequence_length: int, sizes: tuple[int, ...], *, updates: bool) -> None:
    """Raise `ConfigError` where a budget of tokens has no room for a sequence of the set.

    Args:
        config: of the run.
        sequence_length: of the set.
        sizes: of the ranks.
        updates: whether that of an update counts, which evaluation does not have.
    """
    problems = []
    found, total = config.max_tokens, config.global_batch_tokens if updates else None
    wanted = f"wanted at least {sequence_length}, the length of the corpus's sequences"
    if found is not None and found < sequence_length:
        problems.append(f"--max_tokens: found {found}, {wanted}.")
    elif found is not None and (part := smallest_budget(found, sizes)) < sequence_length:
        problems.append(
            f"--max_tokens: found {found}, of which the sizes of the ranks (--local_batch_sizes) make parts of {part} "
            f"tokens, {wanted}: give more, or sizes in simpler proportions (16,8 instead of 16,9)."
        )
    if total is not None and total < sequence_length:
        problems.append(f"--global_batch_tokens: found {total}, {wanted}.")
    if problems:
        raise ConfigError("a budget of tokens", problems)


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
