"""The progress a person watches: a bar on a terminal, else a line every ten seconds with an estimate of the end."""

import logging
import time
from collections.abc import Callable

from tqdm import tqdm

from bert_pytorch.tracking.console import BAR_SHOWS_IT
from bert_pytorch.tracking.records import AnyEvalRow, AnyTrainRow, EndRow, TaskEvalRow, TaskTrainRow
from bert_pytorch.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Progress(Tracker):
    """Logs progress lines and, with `bar`, draws a bar that takes their place on the terminal.

    Args:
        first_step: updates done when this session begins.
        last_step: updates done when it will end.
        bar: whether to draw a bar.
        now: returns seconds from any origin.
    """

    def __init__(
        self, *, first_step: int, last_step: int, bar: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._last_step = last_step
        self._now = now
        self._started: tuple[int, float] | None = None
        self._line_at = 0.0
        self._bar = tqdm(initial=first_step, total=last_step, unit="step", dynamic_ncols=True) if bar else None

    def train(self, row: AnyTrainRow) -> None:
        """Move the bar; log a line if it is the first, the last, or ten seconds after the one before."""
        now = self._now()
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {row.loss:.2f}, {row.tokens_per_second:,.0f} tokens/s", refresh=False)
            self._bar.update(row.step - self._bar.n)
        if self._started is None or row.step >= self._last_step or now - self._line_at >= SECONDS_BETWEEN_LINES:
            self._line_at = now
            logger.info("%s", self._line(row, now), extra={BAR_SHOWS_IT: self._bar is not None})
        if self._started is None:
            self._started = (row.step, now)  # later than the first update, which compiles and warms up

    def evaluation(self, row: AnyEvalRow) -> None:
        """Log the result."""
        logger.info("step %d  %s", row.step, _evaluated(row))

    def end(self, row: EndRow) -> None:
        """Take the bar away and log how it ended."""
        self.close()
        rate = "" if row.tokens_per_second is None else f", {row.tokens_per_second:,.0f} tokens/s"
        logger.info(
            "%s", f"{_REASONS[row.reason]} at step {row.step} ({duration(row.train_seconds)} of training{rate})"
        )

    def close(self) -> None:
        """Leave the bar where it stands."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, row: AnyTrainRow, now: float) -> str:
        line = (
            f"step {row.step}/{self._last_step}  {_losses(row)}  lr {row.learning_rate:.1e}  "
            f"{row.tokens_per_second:,.0f} tokens/s"
        )
        if self._started is None or row.step <= self._started[0] or row.step >= self._last_step:
            return line
        # By the clock, so that evaluations and checkpoints count at the rate they have come so far.
        step, started = self._started
        return f"{line}  ends in {duration((self._last_step - row.step) * (now - started) / (row.step - step))}"


def _losses(row: AnyTrainRow) -> str:
    if isinstance(row, TaskTrainRow):
        return f"loss {row.loss:.3f}"
    nsp = "" if row.nsp_loss is None else f"  nsp {row.nsp_loss:.2f}"
    soft = "" if row.soft_target_loss is None else f"  soft {row.soft_target_loss:.2f}"
    cosine = "" if row.cosine_loss is None else f"  cosine {row.cosine_loss:.3f}"
    return f"loss {row.loss:.2f}  mlm {row.mlm_loss:.2f}{nsp}{soft}{cosine}"


def _evaluated(row: AnyEvalRow) -> str:
    if isinstance(row, TaskEvalRow):
        return "  ".join(f"{name} {value:.4f}" for name, value in row.metrics.items())
    nsp = "" if row.nsp_accuracy is None else f"  nsp accuracy {row.nsp_accuracy:.1%}"
    return (
        f"held-out mlm loss {row.mlm_loss:.3f}  mlm accuracy {row.mlm_accuracy:.1%}{nsp}  "
        f"({row.masked_tokens:,} masked tokens)"
    )


def duration(seconds: float) -> str:
    """Write a time as people say it: `45 s`, `3 min 20 s`, `2 h 05 min`, `1 d 3 h`."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes == 0:
        return f"{whole} s"
    if hours == 0:
        return f"{minutes} min {whole % 60:02} s"
    if days == 0:
        return f"{hours} h {minutes % 60:02} min"
    return f"{days} d {hours % 24} h"


_REASONS = {
    "finished": "finished",
    "session_limit": "session limit (--steps) reached",
    "signal": "stopped on request",
    "time_limit": "stopped for the time limit",
    "failed": "failed",
}
