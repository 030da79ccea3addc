"""What happens to one task where it is worked on, and what every place of work offers (`Executor`)."""

import pickle
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bert_pytorch.errors import BertPytorchError, WorkerError
from bert_pytorch.files import worker_locks


class WorkerLostError(WorkerError):
    """The process that had a task in work ended: killed, out of memory, crashed."""


class Outcome(NamedTuple):
    """How one attempt at a task ended."""

    number: int
    """The task's index."""
    result: Any
    """What the work returned; None with an error."""
    error: Exception | None


class Executor(Protocol):
    """A place where tasks are worked on; a context that ends all its work when it is left."""

    @property
    def capacity(self) -> int:
        """Tasks that it should have at once, in work or about to be."""

    def submit(self, number: int, task: Any) -> None:
        """Take on a task; `wait` tells its outcome."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call, after at most about `seconds`; possibly none."""

    def __enter__(self) -> "Executor": ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...


class InProcess:
    """This process: one task at a time."""

    capacity = 1

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._tasks: list[tuple[int, Any]] = []

    def submit(self, number: int, task: Any) -> None:
        """Keep the task for `wait`."""
        self._tasks.append((number, task))

    def wait(self, seconds: float) -> list[Outcome]:
        """Do what was submitted, however long it takes."""
        tasks, self._tasks = self._tasks, []
        return [Outcome(number, *perform(self._work, task, {})) for number, task in tasks]

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...


def perform(
    work: Callable[[Any], Any], task: Any, admitted: Mapping[Path, str]
) -> tuple[Any, None] | tuple[None, Exception]:
    """Do one task and return its result or its error, in the folders that `files.admit_workers` named."""
    try:
        with worker_locks(admitted):
            return work(task), None
    except Exception as error:
        return None, portable(error)


def portable(error: Exception) -> Exception:
    """Return the error as it can be sent to another process; a defect's traceback goes along in a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
        # An OSError whose `filename2` was set to None says so in its text; its copy does not.
        sendable = type(copy) is type(error) and (isinstance(error, OSError) or str(copy) == str(error))
    except Exception:  # whatever an odd class may raise
        sendable = False
    sent = error if sendable else WorkerError(f"{type(error).__name__}: {error}")
    if not isinstance(error, BertPytorchError | OSError):
        sent.add_note(trace)
    return sent
