"""Requests to stop: SIGTERM, SIGUSR1, the first Ctrl-C, and the time limit.

A request is only noted here; the training loop asks between micro-batches and all ranks agree on the answer.
"""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Literal

StopReason = Literal["signal", "time_limit"]


class StopRequests:
    """Listens for requests to stop.  The second Ctrl-C interrupts at once."""

    def __init__(self, time_limit_seconds: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._deadline = None if time_limit_seconds is None else now() + time_limit_seconds
        self._signal: int | None = None

    def listen(self) -> None:
        """Take over the signals; call from the main thread."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._note)

    def reason(self) -> StopReason | None:
        """Return why this process should stop, or None."""
        if self._signal is not None:
            return "signal"
        if self._deadline is not None and self._now() >= self._deadline:
            return "time_limit"
        return None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        self._signal = number
