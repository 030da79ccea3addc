"""How the samples of an update are shared among ranks and micro-batches.

Ranks may differ in size, the most samples that a micro-batch of theirs holds.  Samples are dealt as cards, in rounds of
K in which a rank is given its share of the sizes: equal ranks one in turn, those of sizes 16, 16, 8 two, two and one.
A micro-batches are as many on every rank; one may be empty, and a rank of size 0 has no other.
"""

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_SIZES = re.compile(r"[0-9]{1,6}(x[1-9][0-9]{0,5})?(,[0-9]{1,6}(x[1-9][0-9]{0,5})?)*")


def parse_sizes(text: str) -> tuple[int, ...]:
    """Read the size of each rank: `16,16,8`, or `16x2,8` for the same.

    Raises:
        ValueError: if the text has another form, or no rank takes anything.
    """
    if _SIZES.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not SIZE,SIZE,… with SIZExRANKS for several alike")
    pieces = (piece.partition("x") for piece in text.split(","))
    sizes = tuple(itertools.chain.from_iterable([int(size)] * int(times or 1) for size, _, times in pieces))
    if not any(sizes):
        raise ValueError("no rank takes a sample")
    return sizes


def spell_sizes(sizes: Sequence[int]) -> str:
    """Write sizes as `parse_sizes` reads them."""
    runs = ((size, len(list(run))) for size, run in itertools.groupby(sizes))
    return ",".join(str(size) if times == 1 else f"{size}x{times}" for size, times in runs)


@lru_cache(maxsize=8)
def round_of(sizes: tuple[int, ...]) -> np.ndarray:
    """Return which rank is dealt each sample of a round, int64 (K,), each rank's spread evenly.

    Equal sizes give 0 … W-1; (16, 16, 8) gives 0 1 2 0 1.
    """
    counts = np.array(sizes) // np.gcd.reduce(sizes)
    ranks = np.repeat(np.arange(len(sizes)), counts)
    turns = np.arange(len(ranks)) - np.repeat(np.cumsum(counts) - counts, counts)
    dealt = ranks[np.lexsort((ranks, turns / counts[ranks]))]
    dealt.flags.writeable = False
    return dealt


def share_of(size: int, sizes: tuple[int, ...], rank: int) -> np.ndarray:
    """Return which of `size` samples a rank is dealt, int64, increasing."""
    dealt = round_of(sizes)
    rounds = np.arange(0, size, len(dealt))
    mine = (rounds[:, None] + np.flatnonzero(dealt == rank)).ravel()
    return mine[mine < size]


def num_micro_batches(size: int, sizes: Sequence[int]) -> int:
    """Return how many micro-batches every rank takes so that none holds more than its rank's size."""
    return -(-size // sum(sizes))


def deal_by_count(size: int, sizes: tuple[int, ...], rank: int) -> list[np.ndarray]:
    """Share samples among ranks, and a rank's share among micro-batches that differ by at most one sample.

    Args:
        size: samples of the update over all ranks.
        sizes: the most samples of a micro-batch of each rank.
        rank: this rank.

    Returns:
        For each micro-batch its samples' numbers in the update, int64.
    """
    mine = share_of(size, sizes, rank)
    count = num_micro_batches(size, sizes)
    bounds = [len(mine) * i // count for i in range(count + 1)]
    return [mine[start:stop] for start, stop in itertools.pairwise(bounds)]


def deal_grouped_by_count(lengths: np.ndarray, sizes: tuple[int, ...], rank: int) -> list[np.ndarray]:
    """Share samples as `deal_by_count` does, but a micro-batch holds samples of similar lengths, on all ranks."""
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    dealt = round_of(sizes)
    count = num_micro_batches(len(order), sizes)
    bounds = [len(order) * i // count for i in range(count + 1)]
    turns = (order[start:stop] for start, stop in itertools.pairwise(bounds))
    return [turn[dealt[_snake(len(turn), len(dealt))] == rank] for turn in turns]


def budgets_of(max_tokens: int, sizes: Sequence[int]) -> np.ndarray:
    """Return the most tokens of a micro-batch of each rank, int64 (W,): the largest rank's are `max_tokens`."""
    return max_tokens * np.array(sizes, np.int64) // max(sizes)


def smallest_budget(max_tokens: int, sizes: tuple[int, ...]) -> int:
    """Return the tokens that one sample of a round must fit into, so that `deal_by_tokens` comes to an end."""
    return max_tokens // int(np.bincount(round_of(sizes)).max())


def deal_by_tokens(
    lengths: np.ndarray, max_tokens: int, sizes: tuple[int, ...], rank: int, *, grouped: bool
) -> list[np.ndarray]:
    """Share samples so that micro-batches hold about as many tokens as their rank's share, at most its budget.

    Args:
        lengths: int (n,), tokens of each sample of the update, each at most `smallest_budget`.
        max_tokens: the most tokens of a micro-batch on the largest rank; others have fewer in proportion.
        sizes: of each rank.
        rank: this rank.
        grouped: whether a micro-batch shall hold samples of similar lengths, else of all lengths.

    Returns:
        For each micro-batch its samples' numbers in the update, int64.
    """
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    dealt, budgets = round_of(sizes), budgets_of(max_tokens, sizes)
    places, ranks = len(dealt), len(sizes)
    count = max(1, -(-int(lengths.sum(dtype=np.int64)) // int(budgets.sum())))
    while True:
        bins = _grouped_bins(lengths[order], count, places) if grouped else _snake(len(order), count * places)
        turns, owners = bins // places, dealt[bins % places]
        tokens = np.bincount(turns * ranks + owners, lengths[order], count * ranks)
        if (tokens.reshape(count, ranks) <= budgets).all():
            return [order[(turns == turn) & (owners == rank)] for turn in range(count)]
        count += 1


def _snake(size: int, bins: int) -> np.ndarray:
    """Deal sorted items there and back again, 0 … b-1, b-1 … 0, which keeps sums close: the bin of each, int64."""
    turn, place = np.divmod(np.arange(size), bins)
    return np.where(turn % 2, bins - 1 - place, place)


def _grouped_bins(lengths: np.ndarray, count: int, places: int) -> np.ndarray:
    """Cut sorted samples into `count` stretches of about equal tokens, and each among places: bins, int64 (n,)."""
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    turns = np.minimum(before * count // max(int(lengths.sum(dtype=np.int64)), 1), count - 1)
    firsts = np.searchsorted(turns, np.arange(count))
    within = np.arange(len(lengths)) - firsts[turns]
    turn, place = np.divmod(within, places)
    return turns * places + np.where(turn % 2, places - 1 - place, place)
