"""The endless stream of samples, as a pure function of (seed, position): O(1) memory, O(1) seek.

Every epoch visits all samples once in an order of its own, given by a keyed permutation of [0, n) that is computed,
never stored: a balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, with cycle walking
(Black and Rogaway 2002, §3) for the rest.  Position p of a stream is the p-th sample consumed since the phase began.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

ROUNDS = 6
"""Four rounds are a strong pseudo-random permutation with ideal round functions; two more pay for a cheap one."""
_MIX_BLOCK = 1 << 14


class Samples(NamedTuple):
    """Samples of a stream, k of them."""

    epochs: np.ndarray
    """int64 (k,), the pass over its corpus that each belongs to, from 0."""
    indices: np.ndarray
    """int64 (k,), index of each, over all corpora."""

    def take(self, chosen: np.ndarray) -> "Samples":
        """Return those chosen by index or mask."""
        return Samples(self.epochs[chosen], self.indices[chosen])


class SampleStream(Protocol):
    """Which sample stands at each position."""

    def samples(self, positions: np.ndarray) -> Samples:
        """Return the samples at `positions`, int64 (k,)."""

    def window_at(self, position: int) -> Hashable:
        """Return what changes when other shards are needed."""

    def shards_from(self, position: int) -> list[int]:
        """Return the shards needed from `position` on, those of the window after it included, numbered over all."""


class Order(Protocol):
    """The order in which an epoch visits the samples of a corpus."""

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""

    def indices(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Map places in the epoch's order, int64 (k,), to sample indices: a permutation of [0, num_samples)."""

    def window_of(self, place: int, epoch: int) -> Hashable:
        """Return what changes when other shards are needed."""

    def shards_from(self, place: int, epoch: int) -> np.ndarray:
        """Return the shards needed from a place on, int64."""


class GlobalOrder(NamedTuple):
    """All samples shuffled together."""

    num_samples: int
    seed: int
    num_shards: int = 1

    def window_of(self, place: int, epoch: int) -> Hashable:
        """Return what never changes: all shards are needed all the time."""
        return 0

    def shards_from(self, place: int, epoch: int) -> np.ndarray:
        """Return all shards, int64."""
        return np.arange(self.num_shards)

    def indices(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Map places in the epoch's order to sample indices."""
        return permute(places, self.num_samples, self.seed, epoch)


class WindowOrder:
    """Shards in random order, the samples of `window` shards at a time shuffled together.

    For corpora of which only a part is within reach at a time.  Memory is that of the list of shards.

    Args:
        shard_sizes: int64 (num_shards,), samples of each shard.
        window: shards of a window; the last one of an epoch may have fewer.
        seed: of the run.
    """

    def __init__(self, shard_sizes: np.ndarray, window: int, seed: int) -> None:
        self.num_samples = int(shard_sizes.sum())
        self._sizes = shard_sizes
        self._starts = np.cumsum(shard_sizes) - shard_sizes
        self._window = window
        self._seed = seed
        self._shards = lru_cache(maxsize=2)(self._shuffled_shards)

    def indices(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """Map places in the epoch's order to sample indices."""
        shards, ends, windows = self._shards(epoch)
        of = np.searchsorted(windows, places, side="right")
        found = np.empty_like(places)
        for window in np.unique(of):
            chosen = of == window
            start = int(windows[window - 1]) if window else 0
            size = int(windows[window]) - start
            key = np.random.SeedSequence([self._seed, int(window)]).generate_state(1, np.uint64)[0]
            rows = start + permute(places[chosen] - start, size, int(key), epoch)
            shard = np.searchsorted(ends, rows, side="right")
            found[chosen] = rows - (ends[shard] - self._sizes[shards[shard]]) + self._starts[shards[shard]]
        return found

    def shards_from(self, place: int, epoch: int) -> np.ndarray:
        """Return the shards of the window that `place` lies in and of the one after it, in that order: int64."""
        shards, _, windows = self._shards(epoch)
        first = int(np.searchsorted(windows, place, side="right")) * self._window
        ahead = shards[first : first + 2 * self._window]
        if len(ahead) <= self._window:  # the epoch's last window; the next epoch's first one follows
            ahead = np.append(ahead, self._shards(epoch + 1)[0][: self._window])
        return ahead

    def window_of(self, place: int, epoch: int) -> tuple[int, int]:
        """Return the epoch and window of a place, which change when another set of shards is needed."""
        return epoch, int(np.searchsorted(self._shards(epoch)[2], place, side="right"))

    def _shuffled_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return an epoch's shards in order, where each ends, and where each window ends."""
        shards = np.random.default_rng([self._seed, epoch]).permutation(len(self._sizes))
        ends = np.cumsum(self._sizes[shards])
        last = np.minimum(np.arange(self._window, len(ends) + self._window, self._window), len(ends)) - 1
        return shards, ends, ends[last]


class ShuffledStream(NamedTuple):
    """Epoch after epoch of one corpus."""

    order: Order
    first_index: int = 0
    """Added to the corpus's sample indices."""
    first_shard: int = 0
    """Added to the corpus's shard numbers."""

    def samples(self, positions: np.ndarray) -> Samples:
        """Return the samples at positions."""
        epochs, places = np.divmod(np.asarray(positions, np.int64), self.order.num_samples)
        indices = np.empty_like(places)
        for epoch in set(epochs.tolist()):  # np.unique imports numpy.ma: 30 ms of the first update
            chosen = epochs == epoch
            indices[chosen] = self.order.indices(places[chosen], epoch)
        return Samples(epochs, indices + self.first_index)

    def window_at(self, position: int) -> Hashable:
        """Return what changes when other shards are needed."""
        epoch, place = divmod(position, self.order.num_samples)
        return self.order.window_of(place, epoch)

    def shards_from(self, position: int) -> list[int]:
        """Return the shards needed from `position` on."""
        epoch, place = divmod(position, self.order.num_samples)
        return (self.order.shards_from(place, epoch) + self.first_shard).tolist()


class MixedStream:
    """Several corpora by weight; each is passed over in epochs of its own.

    Every block of 16,384 positions holds the same number of each corpus's samples, in random order, so that weights are
    met to 1/16,384 and any position can be computed by itself.

    Args:
        streams: one for each corpus.
        weights: share of each, in any unit.
        seed: of the run.
    """

    def __init__(self, streams: list[ShuffledStream], weights: tuple[float, ...], seed: int) -> None:
        self._streams = streams
        self._seed = seed
        wanted = np.asarray(weights, np.float64) / sum(weights) * _MIX_BLOCK
        counts = np.maximum(np.floor(wanted).astype(np.int64), 1)
        while counts.sum() != _MIX_BLOCK:
            missing = wanted - counts
            counts[missing.argmax() if counts.sum() < _MIX_BLOCK else np.where(counts > 1, missing, 2).argmin()] += (
                1 if counts.sum() < _MIX_BLOCK else -1
            )
        self._counts = counts
        self._ends = np.cumsum(counts)

    def samples(self, positions: np.ndarray) -> Samples:
        """Return the samples at positions."""
        blocks, places = np.divmod(np.asarray(positions, np.int64), _MIX_BLOCK)
        slots = np.empty_like(places)
        for block in np.unique(blocks):
            chosen = blocks == block
            slots[chosen] = permute(places[chosen], _MIX_BLOCK, self._seed, int(block))
        corpora = np.searchsorted(self._ends, slots, side="right")
        found = Samples(np.empty_like(places), np.empty_like(places))
        for corpus in np.unique(corpora):
            chosen = corpora == corpus
            count = self._counts[corpus]
            within = blocks[chosen] * count + slots[chosen] - (self._ends[corpus] - count)
            found.epochs[chosen], found.indices[chosen] = self._streams[corpus].samples(within)
        return found

    def window_at(self, position: int) -> Hashable:
        """Return what changes when other shards are needed; a block's samples count as drawn at its start."""
        return tuple(stream.window_at(start) for stream, start in self._starts(position))

    def shards_from(self, position: int) -> list[int]:
        """Return the shards needed from `position` on, of each corpus in turn."""
        return [shard for stream, start in self._starts(position) for shard in stream.shards_from(start)]

    def _starts(self, position: int) -> list[tuple[ShuffledStream, int]]:
        block = position // _MIX_BLOCK
        return [(stream, block * int(count)) for stream, count in zip(self._streams, self._counts, strict=True)]


def permute(places: np.ndarray, num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """Map places in an epoch's order to sample indices: a permutation of [0, num_samples).

    Args:
        places: int64 (k,), each in [0, num_samples).
        num_samples: size of the permuted set.
        seed: of the run.
        epoch: the pass over the data; every one has an order of its own.

    Returns:
        int64 (k,).
    """
    half_bits = max(1, ((num_samples - 1).bit_length() + 1) // 2)
    keys = np.random.SeedSequence([seed, epoch, num_samples]).generate_state(ROUNDS, np.uint64)
    values = _feistel(places.astype(np.uint64), half_bits, keys)
    outside = np.flatnonzero(values >= num_samples)
    while len(outside):  # fewer than four turns on average: the domain is under four times the set
        walked = _feistel(values[outside], half_bits, keys)
        values[outside] = walked
        outside = outside[walked >= num_samples]
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: int, keys: np.ndarray) -> np.ndarray:
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> np.uint64(half_bits), values & mask
    for key in keys:
        mixed = _mix(right ^ key)
        mixed &= mask
        mixed ^= left
        left, right = right, mixed
    return (left << np.uint64(half_bits)) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
