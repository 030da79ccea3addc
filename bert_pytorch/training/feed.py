"""Updates in their order for the loop: begun anew where one is to be repeated, the same for all ranks."""

import logging
from collections.abc import Iterator
from typing import Literal

from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.errors import DamagedShardError
from bert_pytorch.runtime.distributed import World

logger = logging.getLogger(__name__)


class Feed:
    """Draws updates from a loader.

    Args:
        loader: this rank's.
        world: the ranks, which leave out a damaged shard together.
        on_bad_shard: `stop` raises what is wrong with it; `skip` leaves it out from this update on.
    """

    def __init__(self, loader: TrainingLoader, world: World, on_bad_shard: Literal["stop", "skip"]) -> None:
        self._loader = loader
        self._world = world
        self._skips = on_bad_shard == "skip"
        self._stream: Iterator[Update] | None = None
        self._next = (-1, -1)

    def update(self, position: int, number: int) -> Update:
        """Return update `number` of the phase, from 0, which begins after `position` samples.

        Asking for another than the one that follows is allowed: after gradients that were not finite, an update of
        the same number takes the next samples.

        Raises:
            DamagedShardError: naming file and row, unless damaged shards are skipped.
        """
        while True:
            if self._stream is None or self._next != (position, number):
                self._end_stream()
                self._stream = self._loader.stream(position, number)
            update, damaged = self._draw(self._stream)
            if self._skips:
                damaged = self._world.union(damaged)
            if update is not None and not damaged:
                self._next = (update.end_position, number + 1)
                return update
            self._loader.exclude(damaged)
            self._end_stream()

    def excluded(self) -> list[str]:
        """Return the shards that are left out."""
        return self._loader.corpora.excluded()

    def close(self) -> None:
        """End the threads that compute or fetch ahead."""
        self._end_stream()
        self._loader.corpora.close()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]  # a generator
        self._stream = None

    def _draw(self, stream: Iterator[Update]) -> tuple[Update | None, list[str]]:
        try:
            return next(stream), []
        except DamagedShardError as error:
            if not self._skips:
                raise
            logger.warning("left out from here on: %s", error)
            return None, [str(error.path)]
