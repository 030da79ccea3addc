"""A stream of samples reordered so that neighbours have similar lengths: whole updates of them, in random order."""

from collections.abc import Callable, Hashable
from functools import lru_cache

import numpy as np

from bert_pytorch.data.sampling import Samples, SampleStream


class LengthGroupedStream:
    """Sorts windows of a stream by length, cuts them into updates and shuffles these.

    Within a window nothing is lost or doubled, so that positions keep their meaning: samples consumed.

    Args:
        stream: to be reordered.
        lengths_of: returns the lengths of samples, int32 (k,).
        updates: in a window.
        update_size: samples of an update.
        seed: of the run.
    """

    def __init__(
        self,
        stream: SampleStream,
        lengths_of: Callable[[Samples], np.ndarray],
        updates: int,
        update_size: int,
        seed: int,
    ) -> None:
        self._stream = stream
        self._lengths_of = lengths_of
        self._updates = updates
        self._update_size = update_size
        self._seed = seed
        self._window = lru_cache(maxsize=2)(self._sorted_window)

    def samples(self, positions: np.ndarray) -> Samples:
        """Return the samples at positions; a window costs the lengths of all its samples once."""
        windows, places = np.divmod(np.asarray(positions, np.int64), self._updates * self._update_size)
        found = Samples(np.empty_like(places), np.empty_like(places))
        for window in np.unique(windows):
            chosen = windows == window
            found.epochs[chosen], found.indices[chosen] = self._window(int(window)).take(places[chosen])
        return found

    def window_at(self, position: int) -> Hashable:
        """Return what changes when other shards are needed."""
        return self._stream.window_at(self._start_of(position))

    def shards_from(self, position: int) -> list[int]:
        """Return the shards needed from `position` on."""
        return self._stream.shards_from(self._start_of(position))

    def _start_of(self, position: int) -> int:
        size = self._updates * self._update_size
        return position // size * size

    def _sorted_window(self, window: int) -> Samples:
        size = self._updates * self._update_size
        samples = self._stream.samples(np.arange(window * size, (window + 1) * size))
        by_length = np.argsort(self._lengths_of(samples), kind="stable").reshape(self._updates, self._update_size)
        order = np.random.default_rng([self._seed, window]).permutation(self._updates)
        return samples.take(by_length[order].ravel())
