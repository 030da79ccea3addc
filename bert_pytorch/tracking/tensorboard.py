"""TensorBoard: the rows' numbers as scalars `train/loss`, `eval/mlm_accuracy` …, at the x-axis of updates done.

Event files are written with TensorBoard's own record writer and not with torch's `SummaryWriter`: that one writes in a
thread, so a kill costs ten seconds of rows and a full disk ends in a traceback, and it takes an event for each scalar.
"""

import os
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from bert_pytorch.tracking.records import AnyEvalRow, AnyTrainRow, values_of
from bert_pytorch.tracking.tracker import Tracker


class TensorBoard(Tracker):
    """An event file of this session in `directory`; readers ignore what earlier sessions wrote past `first_step`.

    Args:
        directory: the folder to give to `tensorboard --logdir`.
        first_step: updates done when this session begins.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Readers take the files in the order of their names, hence nanoseconds: two sessions can begin in one second.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        node = os.uname().nodename
        self._path = directory / f"events.out.tfevents.{seconds:010}.{nanoseconds:09}.{node}.{os.getpid()}"
        self._file = self._path.open("wb", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def train(self, row: AnyTrainRow) -> None:
        """Add the scalars under `train/`."""
        self._add("train", row)

    def evaluation(self, row: AnyEvalRow) -> None:
        """Add the scalars under `eval/`."""
        self._add("eval", row)

    def flush(self) -> None:
        """Bring the file to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, group: str, row: AnyTrainRow | AnyEvalRow) -> None:
        values = [
            Summary.Value(tag=f"{group}/{name}", simple_value=value)
            for name, value in values_of(row).items()
            if name != "step" and value is not None
        ]
        self._write(Event(step=row.step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        try:
            self._records.write(event.SerializeToString())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error  # write() does not know the name
