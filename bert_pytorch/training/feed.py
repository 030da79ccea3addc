"""Updates in their order for the loop: begun anew where one is to be repeated, the same for all ranks."""

from collections.abc import Iterator
from typing import Literal

from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.errors import DamagedShardError, InputError
from bert_pytorch.runtime.distributed import World
from bert_pytorch.training.updates import Exclusion


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
        self._news: list[Exclusion] = []

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
            self._end_stream()
            self._leave_out(damaged)

    def excluded(self) -> list[str]:
        """Return the shards that are left out, as `Corpora.excluded` names them."""
        return self._loader.corpora.excluded()

    def new_exclusions(self) -> list[Exclusion]:
        """Return the shards that were left out since the last call."""
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """End the threads that compute or fetch ahead."""
        self._end_stream()
        self._loader.corpora.close()

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()  # type: ignore[attr-defined]  # a generator
        self._stream = None

    def _draw(self, stream: Iterator[Update]) -> tuple[Update | None, list[tuple[str, str]]]:
        """Return this rank's update, or the name of a damaged shard and what is wrong with it."""
        try:
            return next(stream), []
        except DamagedShardError as error:
            name = self._loader.corpora.name_of(error.path)
            if not self._skips or name is None:
                raise
            return None, [(name, str(error))]

    def _leave_out(self, damaged: list[tuple[str, str]]) -> None:
        corpora = self._loader.corpora
        reasons = dict(reversed(damaged))  # ranks may have met different rows of a shard: the first is told
        new = [name for name in reasons if name not in corpora.excluded()]
        if not new:
            raise InputError(f"a shard that is left out is still read. {next(iter(reasons.values()))}")
        self._loader.exclude(new)
        self._news += [Exclusion(name, corpora.sequences_of([name]), reasons[name]) for name in sorted(new)]
