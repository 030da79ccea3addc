"""What `launch check` found, and how a person reads it.  No torch here."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

SHOWN_RANKS = 8


class Message(NamedTuple):
    """All-reduces of one size."""

    dtype: str
    num_bytes: int
    seconds: float
    """Of one, the mean over ranks."""


class RankFound(NamedTuple):
    """One rank."""

    rank: int
    machine: str
    device: str
    processors: str
    flops: float
    """FLOP/s of matrix products, computed while the other ranks computed theirs."""


class Report(NamedTuple):
    """Everything, on rank 0."""

    network: str
    messages: tuple[Message, ...]
    """None with one rank."""
    ranks: tuple[RankFound, ...]


def algorithm_bandwidth(message: Message) -> float:
    """Return bytes a second of one all-reduce: its size over its time."""
    return message.num_bytes / message.seconds


def bus_bandwidth(message: Message, num_ranks: int) -> float:
    """Return bytes a second that each link carries, to be compared with what the hardware can do.

    An all-reduce moves 2 (n - 1) / n of its size over each rank's link, whatever the number n of ranks (nccl-tests,
    doc/PERFORMANCE.md, "AllReduce").
    """
    return algorithm_bandwidth(message) * 2 * (num_ranks - 1) / num_ranks


def slow_ranks(ranks: Sequence[RankFound], factor: float) -> list[tuple[RankFound, float]]:
    """Return ranks that compute more than `factor` times slower than the median one, and how many times.

    Of an even number the faster of the two in the middle is the median, so that of two ranks the slower one shows.
    """
    middle = statistics.median_high(each.flops for each in ranks)
    found = [(each, middle / each.flops) for each in ranks if middle > factor * each.flops]
    return sorted(found, key=lambda pair: -pair[1])


def describe(report: Report, factor: float) -> Iterator[str]:
    """Yield the lines of a report.

    Args:
        report: what was found.
        factor: how many times slower than the median a rank may be without a warning.
    """
    machines = list(dict.fromkeys(each.machine for each in report.ranks))
    count = len(report.ranks)
    yield f"{_several(count, 'rank')} on {_several(len(machines), 'machine')}; network: {report.network}"
    if report.messages:
        yield ""
        yield from _message_lines(report.messages, count)
    else:
        yield "one rank: nobody to exchange messages with"
    yield ""
    yield from _rank_lines(report.ranks)
    slow = slow_ranks(report.ranks, factor)
    for each, times in slow[:SHOWN_RANKS]:
        yield f"warning: rank {each.rank} on {each.machine} computes {times:.2f} times slower than the median rank"
    if len(slow) > SHOWN_RANKS:
        yield f"warning: {len(slow) - SHOWN_RANKS} more are over {factor:g} times slower"


def as_json(report: Report, factor: float) -> dict[str, Any]:
    """Return a report as plain data; seconds, bytes a second and FLOP/s."""
    count = len(report.ranks)
    return {
        "network": report.network,
        "messages": [
            {
                **message._asdict(),
                "algorithm_bandwidth": algorithm_bandwidth(message),
                "bus_bandwidth": bus_bandwidth(message, count),
            }
            for message in report.messages
        ],
        "ranks": [each._asdict() for each in report.ranks],
        "slow_ranks": [each.rank for each, _ in slow_ranks(report.ranks, factor)],
    }


def _message_lines(messages: Sequence[Message], count: int) -> Iterator[str]:
    yield f"{'all-reduce':>18}  {'time':>10}  {'algorithm GB/s':>14}  {'bus GB/s':>8}"
    for message in messages:
        yield (
            f"{message.dtype:>6}{_size(message.num_bytes):>12}  {_time(message.seconds):>10}  "
            f"{algorithm_bandwidth(message) / 1e9:>14.3f}  {bus_bandwidth(message, count) / 1e9:>8.3f}"
        )
    first = messages[0]
    best = max(messages, key=lambda message: bus_bandwidth(message, count))
    yield (
        f"latency {_time(first.seconds)} ({_size(first.num_bytes)}), bandwidth {bus_bandwidth(best, count) / 1e9:.3f} "
        f"GB/s on the bus ({best.dtype} {_size(best.num_bytes)})"
    )


def _rank_lines(ranks: Sequence[RankFound]) -> Iterator[str]:
    """Yield the slowest ranks, all if they are few, and the median."""
    slowest = sorted(ranks, key=lambda each: each.flops)[:SHOWN_RANKS]
    width = max(len(each.machine) for each in slowest)
    yield "matrix products, all ranks at once, the slowest first:"
    for each in slowest:
        yield (
            f"  rank {each.rank:<5} {each.machine:<{width}}  {each.flops / 1e9:>10,.1f} GFLOP/s  {each.device}; "
            f"processors: {each.processors}"
        )
    if len(ranks) > 1:
        middle = statistics.median_high(each.flops for each in ranks)
        fastest = max(each.flops for each in ranks)
        yield f"  median {middle / 1e9:,.1f}, fastest {fastest / 1e9:,.1f} GFLOP/s"


def _several(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _size(num_bytes: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:g} {name}"
    return f"{num_bytes} B"


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
