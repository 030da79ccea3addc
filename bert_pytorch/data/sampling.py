"""Which samples an update takes, as a pure function of (seed, samples consumed): O(1) memory, O(1) seek.

Every epoch visits all samples once in an order of its own, given by a keyed permutation of [0, n) that is computed,
never stored: a balanced Feistel network (Luby and Rackoff 1988) over the next even power of two, with cycle walking
(Black and Rogaway 2002, §3) for the rest.
"""

import itertools
from typing import NamedTuple

import numpy as np

ROUNDS = 6
"""Four rounds are a strong pseudo-random permutation with ideal round functions; two more pay for a cheap one."""


class Samples(NamedTuple):
    """A stretch of the endless stream of samples."""

    epochs: np.ndarray
    """int64 (k,), the pass over the data that each belongs to, from 0."""
    indices: np.ndarray
    """int64 (k,), index of each in the shard set."""


def samples_at(positions: np.ndarray, num_samples: int, seed: int) -> Samples:
    """Return the samples at positions of the stream.

    Args:
        positions: int64 (k,), increasing; position p is the p-th sample consumed since the phase began.
        num_samples: samples in the set, at least 1.
        seed: of the run.
    """
    epochs, places = np.divmod(positions.astype(np.int64), num_samples)
    indices = np.empty_like(places)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        indices[chosen] = permute(places[chosen], num_samples, seed, int(epoch))
    return Samples(epochs, indices)


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
    values = places.astype(np.uint64)
    outside = np.arange(len(values))
    while len(outside):  # fewer than four turns on average: the domain is under four times the set
        values[outside] = _feistel(values[outside], half_bits, keys)
        outside = outside[values[outside] >= num_samples]
    return values.astype(np.int64)


def _feistel(values: np.ndarray, half_bits: int, keys: np.ndarray) -> np.ndarray:
    mask = np.uint64((1 << half_bits) - 1)
    left, right = values >> np.uint64(half_bits), values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << np.uint64(half_bits)) | right


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def micro_batch_slices(global_batch_size: int, local_batch_size: int, rank: int, world_size: int) -> list[slice]:
    """Share one update's samples among ranks and micro-batches.

    Rank r takes the samples r, r + W, r + 2W … of the update; these slices cut its share into micro-batches that differ
    by at most one sample, their number the same on every rank.  Where a share has fewer samples than micro-batches, a
    slice is empty and that rank takes part with nothing to add.

    Args:
        global_batch_size: samples of the update over all ranks.
        local_batch_size: the most samples of one micro-batch.
        rank: this rank.
        world_size: number of ranks, W.

    Returns:
        Slices of the rank's own share, in order.
    """
    largest_share = -(-global_batch_size // world_size)
    count = -(-largest_share // local_batch_size)
    share = len(range(rank, global_batch_size, world_size))
    bounds = [share * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
