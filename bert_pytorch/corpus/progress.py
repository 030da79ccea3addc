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
    """Counts bytes of finished work towards a total."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self._what, self._total, self._done = what, max(total_bytes, 1), 0
        self._start = self._last = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total_bytes, desc=what, unit="B", unit_scale=True, unit_divisor=1024)

    def advance(self, count: int) -> None:
        """Add `count` finished bytes."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            elapsed = self._last - self._start
            left = elapsed * (self._total - self._done) / max(self._done, 1)
            logger.info(
                "%s: %.0f %% of %.1f MB, %.2f MB/s, about %.0f s left",
                self._what,
                100 * self._done / self._total,
                self._total / 1e6,
                self._done / elapsed / 1e6,
                max(left, 0),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
