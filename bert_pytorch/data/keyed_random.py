"""Random numbers that are a pure function of a key: streams of hashes, and subsets of a fixed size.

Every sequence of a batch has a key of its own, so that what it gets depends on nothing that stands beside it.
"""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea, Flood 2014): a bijection of uint64 that hides structure."""
    value = value + GOLDEN
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def streams(keys: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the first numbers of each key's stream, end to end.

    Args:
        keys: uint64 (B,).
        counts: int64 (B,), how many of each.

    Returns:
        uint64 (sum of counts,), each uniform over 64 bits.
    """
    begins = (np.cumsum(counts) - counts).astype(np.uint64)
    values = np.arange(counts.sum(), dtype=np.uint64)
    values *= GOLDEN
    values += np.repeat(keys - begins * GOLDEN, counts)
    return mix(values)


def scaled(hashes: np.ndarray, sizes: np.ndarray | np.uint64) -> np.ndarray:
    """Map hashes to [0, size) by their upper 32 bits, int64; a value's probability is off by less than 2**-32."""
    places = hashes >> np.uint64(32)
    places *= sizes
    places >>= np.uint64(32)
    return places.view(np.int64)


def choose_subsets(sizes: np.ndarray, wanted: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    """Choose `wanted` of `sizes` things for each key, without replacement, every subset alike.

    As many draws as are wanted are made at once; one that meets a taken thing, or that a later draw of its round
    repeats, is made again.  Nothing but equality of draws decides that, so that renaming the things changes no
    probability: all subsets of a size are equally likely.  Where more than half are wanted, those left out are drawn,
    so that a draw succeeds at least every other time and the work is about one hash a thing chosen.

    Args:
        sizes: int64 (B,), things that each key chooses from, fewer than 2**32; numbered through over all keys.
        wanted: int64 (B,), at most `sizes`.
        hashes: uint64 (sum of wanted,), as `streams` makes them; their lower 32 bits decide only what is drawn again.

    Returns:
        int64 (sum of wanted,), numbers of the chosen things, increasing.
    """
    drawn = np.minimum(wanted, sizes - wanted)
    left_out = drawn != wanted
    if left_out.any():
        numbers = np.arange(len(hashes)) - np.repeat(np.cumsum(wanted) - wanted, wanted)
        hashes = hashes[numbers < np.repeat(drawn, wanted)]
    first = np.repeat(np.cumsum(sizes) - sizes, drawn)
    size = np.repeat(sizes.astype(np.uint64), drawn)
    total = int(sizes.sum())
    taken, last_draw = np.zeros(total, bool), np.empty(total, np.int32)
    while len(hashes):
        places = scaled(hashes, size)
        places += first
        draws = np.arange(len(places), dtype=np.int32)
        last_draw[places] = draws  # of equal places the last assignment stays
        again = np.flatnonzero((last_draw.take(places) != draws) | taken.take(places))
        taken[places] = True
        hashes, first, size = mix(hashes.take(again)), first.take(again), size.take(again)
    if left_out.any():
        taken ^= np.repeat(left_out, sizes)
    return np.flatnonzero(taken)
