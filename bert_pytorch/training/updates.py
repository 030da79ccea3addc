"""What the step and the loop know of the data: updates that are made of micro-batches, and where they come from."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Update(Protocol):
    """What one rank computes in one optimizer update."""

    @property
    def micro_batches(self) -> Sequence[Any]:
        """As many on every rank, each as the run's `Objective` takes it, and with `num_tokens`."""

    @property
    def epoch(self) -> int:
        """The pass over the data that the update's last sample belongs to, from 0."""

    @property
    def end_position(self) -> int:
        """Samples consumed once this update is done, over all ranks."""

    @property
    def num_sequences(self) -> int:
        """Samples of this update over all ranks."""


class Exclusion(NamedTuple):
    """A damaged shard that is left out."""

    shard: str
    """Its name, as `Corpora.excluded` gives it."""
    sequences: int
    """In it."""
    reason: str
    """What is wrong with which of its rows."""


class UpdateSource(Protocol):
    """Where the loop draws updates from."""

    def update(self, position: int, number: int) -> Update:
        """Return update `number` of the phase, from 0, which begins after `position` samples."""

    def new_exclusions(self) -> list[Exclusion]:
        """Return what was left out since the last call."""

    def close(self) -> None:
        """End what computes ahead."""
