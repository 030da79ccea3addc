"""How far a long piece of work is: a bar on a terminal, a line now and then without one."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
_WORTH_A_LINE = 1.0
"""Seconds of work that end with a line."""


class Progress:
    """Counts bytes of finished work towards a total.

    Args:
        what: the work's name.
        total_bytes: None where nobody knows.
        done_before: bytes of the total that an earlier start finished; they count in no rate.
    """

    def __init__(self, what: str, total_bytes: int | None, done_before: int = 0) -> None:
        self._what, self._total, self._done_before, self._done = what, total_bytes, done_before, 0
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_bytes, initial=done_before, desc=what, unit="B", unit_scale=True)

    def advance(self, count: int) -> None:
        """Add `count` finished bytes."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        else:
            self.tick()

    def tick(self) -> None:
        """Show that time goes by, where it is time for it: a single file may take minutes."""
        if self._bar is not None:
            self._bar.refresh()
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            logger.info("%s", self._line(self._last - self._start))

    def _line(self, elapsed: float) -> str:
        done, rate = self._done_before + self._done, self._done / elapsed
        if self._total is None:
            return f"{self._what}: {done / 1e6:.1f} MB, {rate / 1e6:.2f} MB/s"
        total = f"{self._total / 1e6:.1f} MB"
        if not self._done:
            return f"{self._what}: nothing of {total} finished yet after {tqdm.format_interval(elapsed)}"
        share = min(done / max(self._total, 1), 1.0)
        left = tqdm.format_interval(max(self._total - done, 0) / rate)
        return f"{self._what}: {share:.0%} of {total}, {rate / 1e6:.2f} MB/s, {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None and self._done and (elapsed := time.monotonic() - self._start) >= _WORTH_A_LINE:
            rate = self._done / elapsed / 1e6
            took = tqdm.format_interval(elapsed)
            logger.info("%s: %.1f MB in %s, %.2f MB/s", self._what, self._done / 1e6, took, rate)
