"""TensorBoard: the rows' numbers as scalars `train/loss`, `eval/mlm_accuracy` …, at the x-axis of updates done.

Importing torch's writer takes about a second; only `open_tracker` imports this module, on rank 0.
"""

from pathlib import Path
from typing import NamedTuple

from torch.utils.tensorboard import SummaryWriter

from bert_pytorch.tracking.records import EvalRow, TrainRow
from bert_pytorch.tracking.tracker import Tracker


class TensorBoard(Tracker):
    """Event files in `directory`; a reader ignores what earlier sessions wrote past `first_step`.

    Events wait in memory for up to ten seconds or until `flush`.
    """

    def __init__(self, directory: Path, first_step: int) -> None:
        self._writer = SummaryWriter(str(directory), purge_step=first_step + 1, flush_secs=10)

    def train(self, row: TrainRow) -> None:
        """Add the scalars under `train/`."""
        self._add("train", row)

    def evaluation(self, row: EvalRow) -> None:
        """Add the scalars under `eval/`."""
        self._add("eval", row)

    def flush(self) -> None:
        """Write waiting events."""
        self._writer.flush()

    def close(self) -> None:
        """Write waiting events and close the file."""
        self._writer.close()

    def _add(self, group: str, row: TrainRow | EvalRow) -> None:
        for name, value in _scalars(row):
            self._writer.add_scalar(f"{group}/{name}", value, row.step)


def _scalars(row: NamedTuple) -> list[tuple[str, float]]:
    return [(name, value) for name, value in row._asdict().items() if name != "step" and value is not None]
