"""Opening a session's tracker over the files of an output folder."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bert_pytorch.tracking.config import TrackingConfig
from bert_pytorch.tracking.metrics_files import Csv, JsonLines, last_event
from bert_pytorch.tracking.progress import Progress
from bert_pytorch.tracking.records import AnyEvalRow, AnyStartRow, AnyTrainRow, EndRow, ExcludeRow, TrainRow
from bert_pytorch.tracking.tracker import Tracker

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


def open_tracker(
    directory: Path,
    config: TrackingConfig,
    *,
    first_step: int,
    last_step: int,
    rank: int = 0,
    columns: Sequence[str] = TrainRow._fields,
    terminal: bool | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Tracker:
    """Open everything a session writes about itself; rows of updates past `first_step` are dropped from its files.

    Args:
        directory: the run's output folder; on rank 0 this process holds its lock.
        config: names and intervals.
        first_step: updates done when the session begins, 0 for a new run.
        last_step: updates done when it will end.
        rank: of this process; on ranks other than 0 the tracker does nothing and touches no file.
        columns: of the CSV: the fields of the run's rows of updates.
        terminal: whether a person watches; None to see whether both standard streams are terminals.
        now: returns seconds from any origin, for the estimate of the end.

    Raises:
        InputError: if the CSV has other columns.
    """
    if rank != 0:
        return Tracker()
    from bert_pytorch.tracking.tensorboard import TensorBoard  # imports that other ranks are spared

    if terminal is None:
        terminal = sys.stdout.isatty() and sys.stderr.isatty()
    return _AllOf(
        [
            JsonLines(directory / METRICS_FILE, first_step),
            Csv(directory / f"{config.log_prefix}_metrics.csv", first_step, columns),
            TensorBoard(directory / TENSORBOARD_FOLDER, first_step),
            Progress(
                first_step=first_step, last_step=last_step, bar=terminal and not config.disable_progress_bar, now=now
            ),
        ]
    )


def complete_metrics(directory: Path, row: EndRow) -> None:
    """Append a session's `end` row to its metrics unless the last of them is one."""
    path = directory / METRICS_FILE
    if last_event(path) != "end":
        rows = JsonLines(path, row.step)
        rows.end(row)
        rows.close()


class _AllOf(Tracker):
    """Hands every row to each of several trackers, in their order."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = trackers

    def start(self, row: AnyStartRow) -> None:
        """Record the beginning of the session."""
        for tracker in self._trackers:
            tracker.start(row)

    def exclusion(self, row: ExcludeRow) -> None:
        """Record that a shard is left out."""
        for tracker in self._trackers:
            tracker.exclusion(row)

    def train(self, row: AnyTrainRow) -> None:
        """Record an update."""
        for tracker in self._trackers:
            tracker.train(row)

    def evaluation(self, row: AnyEvalRow) -> None:
        """Record an evaluation."""
        for tracker in self._trackers:
            tracker.evaluation(row)

    def end(self, row: EndRow) -> None:
        """Record the end of the session."""
        for tracker in self._trackers:
            tracker.end(row)

    def flush(self) -> None:
        """Flush each."""
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        """Close each, even if closing another fails."""
        with contextlib.ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close)
