"""How far a long piece of work is: a bar on a terminal, a line now and then without one."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts bytes of finished work towards a total.

    Args:
        what: the work's name.
        total_bytes: None where nobody knows.
        done_before: bytes of the total that an earlier start finished; they count in no rate.
    """

    def __init__(self, what: str, total_bytes: int | None, done_before: int = 0) -> None:
        self._what, self._total, self._done_before, self._done = what, total_bytes, done_before, done_before
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total_bytes, initial=done_before, desc=what, unit="B", unit_scale=True, unit_divisor=1024
            )

    def advance(self, count: int) -> None:
        """Add `count` finished bytes."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            logger.info("%s: %s", self._what, self._line(self._last - self._start))

    def _line(self, elapsed: float) -> str:
        rate = (self._done - self._done_before) / elapsed
        if self._total is None:
            return f"{self._done / 1e6:.1f} MB, {rate / 1e6:.2f} MB/s"
        left = max(self._total - self._done, 0) / max(rate, 1e-9)
        share = 100 * self._done / max(self._total, 1)
        return f"{share:.0f} % of {self._total / 1e6:.1f} MB, {rate / 1e6:.2f} MB/s, about {left:.0f} s left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
