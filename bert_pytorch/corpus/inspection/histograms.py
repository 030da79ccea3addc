"""Exact histograms of whole numbers, small whatever the corpus: each value once, with its count."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

_PERCENTILES = (5, 25, 50, 75, 95, 99)
_BARS = 16
_FAR = 12
"""How many medians away a hundredth of the values must be for bars to double in width."""


class Histogram(NamedTuple):
    """How often each value occurs; v distinct values, of which T tokens in all allow no more than sqrt(2 T)."""

    values: np.ndarray
    """int64 (v,), increasing."""
    counts: np.ndarray
    """int64 (v,), above 0."""

    @property
    def total(self) -> int:
        """How many numbers were counted."""
        return int(self.counts.sum())

    @property
    def sum(self) -> int:
        """Their sum."""
        return int(self.values @ self.counts)


class Chart(NamedTuple):
    """A histogram made ready to be drawn: k bars."""

    title: str
    axis: str
    """What is counted along the axis, with its unit."""
    edges: np.ndarray
    """int64 (k + 1,), bar i holds values from `edges[i]` to `edges[i + 1]`, exclusive."""
    counts: np.ndarray
    """int64 (k,)."""
    what: str
    """What the bars count, in the plural."""
    mean: float
    median: int
    logarithmic: bool
    """Whether bars double in width."""
    beyond: bool
    """Whether the last bar holds all larger values too."""


def histogram_of(numbers: np.ndarray) -> Histogram:
    """Count integers (n,)."""
    values, counts = np.unique(np.asarray(numbers, np.int64), return_counts=True)
    return Histogram(values, counts.astype(np.int64))


def from_dense(counts: np.ndarray) -> Histogram:
    """Read counts of the values 0 to len(counts) − 1."""
    values = np.flatnonzero(counts)
    return Histogram(values, np.asarray(counts, np.int64)[values])


def add_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Sum histograms of any values."""
    parts = [Histogram(np.empty(0, np.int64), np.empty(0, np.int64)), *histograms]
    values, places = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, np.concatenate([part.counts for part in parts]))
    return Histogram(values, counts)


def summary(histogram: Histogram) -> dict[str, float | int]:
    """Return mean, smallest, largest and percentiles: the smallest value that has so many per cent at or below it."""
    if not histogram.total:
        return {}
    found: dict[str, float | int] = {"mean": round(histogram.sum / histogram.total, 4)}
    found |= {"min": int(histogram.values[0]), "max": int(histogram.values[-1])}
    return found | {f"p{share}": percentile(histogram, share) for share in _PERCENTILES}


def percentile(histogram: Histogram, share: int) -> int:
    """Return the smallest value that has `share` per cent of the numbers at or below it; 0 where there is none."""
    if not histogram.total:
        return 0
    wanted = -(-share * histogram.total // 100)
    return int(histogram.values[np.searchsorted(np.cumsum(histogram.counts), max(wanted, 1))])


def draw_up(histogram: Histogram, title: str, axis: str, what: str, limit: int = 0) -> Chart:
    """Choose bars: of equal round widths, the last one open where few values are far off; doubling ones if many are.

    Args:
        histogram: of what is drawn.
        title: of the chart.
        axis: what is counted, with its unit.
        what: what the bars count, in the plural.
        limit: largest value possible; the last of equal bars, from 1 on, ends with it. 0: there is no such value.
    """
    median, usual = percentile(histogram, 50), percentile(histogram, 99)
    smallest, largest = (int(histogram.values[0]), int(histogram.values[-1])) if histogram.total else (0, 0)
    logarithmic = usual > _FAR * max(median, 1)
    if limit:
        logarithmic, width = False, -(-limit // _BARS)
        edges = np.append(np.arange(limit + 1, width, -width, dtype=np.int64), 1)[::-1]
    elif logarithmic:
        edges = np.concatenate([[0], 2 ** np.arange(largest.bit_length() + 1)]).astype(np.int64)
        edges = edges[int(np.searchsorted(edges, smallest, "right")) - 1 :]
    else:
        end = usual if largest > 2 * usual else largest
        width = _round_up((end + 1) / _BARS)
        edges = np.arange(0, end + width + 1, width, dtype=np.int64)
    beyond = int(edges[-1]) <= largest
    if beyond:
        edges = np.append(edges, edges[-1] + edges[1] - edges[0])
    owner = np.clip(np.searchsorted(edges, histogram.values, "right") - 1, 0, len(edges) - 2)
    counts = np.bincount(owner, histogram.counts, len(edges) - 1).astype(np.int64)
    mean = histogram.sum / max(1, histogram.total)
    return Chart(title, axis, edges, counts, what, mean, median, logarithmic, beyond)


def _round_up(width: float) -> int:
    """Return the next of 1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128, … times powers of ten."""
    steps = (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80)
    power = 1
    while True:
        for step in steps:
            if step * power >= width:
                return step * power
        power *= 100
