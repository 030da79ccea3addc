"""The one door of this room: what the training loop tells, row by row, and all it knows about who listens."""

from types import TracebackType
from typing import Self

from bert_pytorch.tracking.records import AnyEvalRow, AnyStartRow, AnyTrainRow, EndRow, ExcludeRow


class Tracker:
    """Receives what a run tells about itself; this one, for ranks other than 0, does nothing with it."""

    def start(self, row: AnyStartRow) -> None:
        """Record what a session begins with."""

    def exclusion(self, row: ExcludeRow) -> None:
        """Record that a shard is left out."""

    def train(self, row: AnyTrainRow) -> None:
        """Record an update."""

    def evaluation(self, row: AnyEvalRow) -> None:
        """Record an evaluation."""

    def end(self, row: EndRow) -> None:
        """Record why and where the session ended."""

    def flush(self) -> None:
        """Bring everything to the disk; call it before a checkpoint is written.

        A kill loses no row anyway; after a crash of the machine, too, a run has every row up to its checkpoint then.
        """

    def close(self) -> None:
        """Let go of all files; may be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
