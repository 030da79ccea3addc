"""How long updates take: wall clock between updates, with waiting for data told apart and everything else left out.

The host's clock is meant: where a device works asynchronously, the loop reads something from it once an update (is the
gradient finite?), so that host and device are in step by the time `finish_step` is called.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple


class StepRates(NamedTuple):
    """One update's own times and rates."""

    step_seconds: float
    """Wall clock since the update before, waiting for data included, evaluation and checkpointing left out."""
    data_wait_seconds: float
    """The part of it spent waiting for data."""
    sequences_per_second: float
    """Over all ranks, if `finish_step` was given counts over all ranks."""
    tokens_per_second: float
    """Real (non-padding) input tokens, over all ranks likewise."""


class SessionTotals(NamedTuple):
    """What the `end` row says about this session; the first updates (warm-up, compilation) are left out."""

    updates: int
    """Updates measured."""
    train_seconds: float
    """Sum of their `step_seconds`."""
    sequences_per_second: float | None
    """None if no update was measured."""
    tokens_per_second: float | None
    """None if no update was measured."""


class StepClock:
    """Measures from construction, or the last `restart`, to each `finish_step`.

    Args:
        skipped_updates: how many first updates the totals leave out.
        now: returns seconds from any origin.
    """

    def __init__(self, *, skipped_updates: int = 1, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._to_skip = skipped_updates
        self._updates = 0
        self._seconds = 0.0
        self._sequences = 0
        self._tokens = 0
        self._excluding = False
        self.restart()

    def restart(self) -> None:
        """Begin the next update's time now, forgetting what has passed since the last update."""
        self._started = self._now()
        self._excluded_seconds = 0.0
        self._wait_seconds = 0.0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        started, excluded_before = self._now(), self._excluded_seconds
        try:
            yield
        finally:
            if not self._excluding:  # an evaluation's wait for its own data is left out with the evaluation
                self._wait_seconds += self._now() - started - (self._excluded_seconds - excluded_before)

    @contextlib.contextmanager
    def excluded(self) -> Iterator[None]:
        """Leave the time inside out of the update and of the totals: evaluation, checkpointing."""
        if self._excluding:
            yield
            return
        started, self._excluding = self._now(), True
        try:
            yield
        finally:
            self._excluded_seconds += self._now() - started
            self._excluding = False

    def finish_step(self, sequences: int, tokens: int) -> StepRates:
        """End one update and begin the next.

        Args:
            sequences: of this update, over all ranks.
            tokens: real input tokens of this update, over all ranks.
        """
        seconds = max(self._now() - self._started - self._excluded_seconds, 1e-9)  # clocks tick in steps
        rates = StepRates(seconds, self._wait_seconds, sequences / seconds, tokens / seconds)
        if self._to_skip > 0:
            self._to_skip -= 1
        else:
            self._updates += 1
            self._seconds += seconds
            self._sequences += sequences
            self._tokens += tokens
        self.restart()
        return rates

    def totals(self) -> SessionTotals:
        """Return the session's totals; an update that was begun and not finished is not in them."""
        if self._updates == 0:
            return SessionTotals(0, 0.0, None, None)
        return SessionTotals(
            self._updates, self._seconds, self._sequences / self._seconds, self._tokens / self._seconds
        )
