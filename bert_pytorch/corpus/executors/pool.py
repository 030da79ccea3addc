"""Work spread over processes or machines: the same results in the same order wherever, failures retried and named."""

import errno
import logging
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.corpus.executors.dask_pool import DaskPool, check_scheduler
from bert_pytorch.errors import (
    BertPytorchError,
    ConfigError,
    InputError,
    MissingDependencyError,
    WorkerError,
    explain_os_error,
)
from bert_pytorch.progress import Progress
from bert_pytorch.workers.executor import Executor, InProcess, WorkerLostError
from bert_pytorch.workers.local_pool import LocalPool

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 1.0
_MOST_NAMED = 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LASTING = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


class PoolConfig(Settings):
    """How work is spread."""

    processes: int = Field(0, ge=0)
    """Worker processes; 0 takes every core this program may run on. The result does not depend on it."""
    scheduler: str = ""
    """Do the work on a running Dask cluster: its scheduler's address, tcp://host:8786, or the file that it wrote
    (dask scheduler --scheduler-file F.json). The workers need this same package and a file system shared with this
    machine; --processes then counts only for what is done here."""
    retries: int = Field(2, ge=0, le=100)
    """Further attempts at a file whose worker was killed or whose error may pass, as one of the file system."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if (
            self.scheduler
            and not re.fullmatch(r"[a-z]+://\S+:\d+", self.scheduler)
            and not Path(self.scheduler).is_file()
        ):
            yield (
                f"--scheduler: found {self.scheduler!r}, wanted an address such as tcp://host:8786 or an existing "
                "scheduler file. A scheduler is started with: dask scheduler"
            )


def num_processes(config: PoolConfig) -> int:
    """Return the number of processes on this machine that a configuration asks for."""
    return config.processes or len(os.sched_getaffinity(0))


def check_pool(pool: PoolConfig) -> None:
    """Before work that leaves files behind: make sure that the cluster of `--scheduler` can be reached.

    Raises:
        MissingDependencyError: without `distributed`.
        WorkerError: if there is no scheduler or no worker.
    """
    if pool.scheduler:
        check_scheduler(pool.scheduler)


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    pool: PoolConfig,
    name: Callable[[Task], str],
    progress: Progress,
    size: Callable[[Task], int],
) -> list[Result]:
    """Call `work` on every task; results come in the order of tasks.

    A task that fails does not stop the others.  An error that may pass is tried again after them, and a task whose
    process was killed then has the machine to itself.  Work may be done twice (where a cluster takes a live worker for
    dead): it writes by `files.atomic_path`, the same bytes each time.

    Args:
        work: a function of a module, so that it can be sent to a process.
        tasks: what to call it with.
        pool: where, in how many processes, and how many attempts.
        name: says what a task works on, for messages.
        progress: told the size of each finished task.
        size: of a task, in the unit of `progress`.

    Raises:
        BertPytorchError, OSError: what the only task that failed raised.
        InputError: naming all tasks that failed, if all for this reason.
        WorkerError: naming all tasks that failed; or the only one, if it failed otherwise or its process was killed.
    """
    if not tasks:
        return []
    attempts = _Attempts(tasks, name, progress, size)
    with _executor(work, tasks, pool) as executor:
        attempts.make(range(len(tasks)), executor, executor.capacity)
        for retry in range(pool.retries):
            again = [number for number, error in attempts.failures.items() if _may_pass(error)]
            if not again:
                break
            time.sleep(_FIRST_PAUSE_SECONDS * 2**retry)
            lost = [number for number in again if _lacked_memory(attempts.failures[number])]
            attempts.make([number for number in again if number not in set(lost)], executor, executor.capacity)
            attempts.make(lost, executor, 1)
    if attempts.failures:
        raise _summary(
            [(name(tasks[number]), error) for number, error in sorted(attempts.failures.items())], len(tasks)
        )
    return attempts.results


def _executor(work: Callable[[Any], Any], tasks: Sequence[Any], pool: PoolConfig) -> Executor:
    if pool.scheduler:
        return DaskPool(work, pool.scheduler, tasks[0])
    processes = min(num_processes(pool), len(tasks))
    return LocalPool(work, processes) if processes > 1 else InProcess(work)


class _Attempts:
    """What came of the tasks so far."""

    def __init__(
        self, tasks: Sequence[Any], name: Callable[[Any], str], progress: Progress, size: Callable[[Any], int]
    ) -> None:
        self._tasks, self._name, self._progress, self._size = tasks, name, progress, size
        self.results: list[Any] = [None] * len(tasks)
        self.failures: dict[int, Exception] = {}
        self._warned: set[int] = set()

    def make(self, numbers: Sequence[int], executor: Executor, at_once: int) -> None:
        """Attempt tasks, only so many of them handed over at a time: each may hold megabytes.

        Raises:
            BertPytorchError, OSError: if no other task could fare better: a full disk, a missing library.
        """
        waiting, in_work = deque(numbers), 0
        while waiting or in_work:
            while waiting and in_work < min(at_once, executor.capacity):
                executor.submit(waiting[0], self._tasks[waiting.popleft()])
                in_work += 1
            for number, result, error in executor.wait(1.0):
                in_work -= 1
                self.failures.pop(number, None)
                if error is None:
                    self.results[number] = result
                    self._progress.advance(self._size(self._tasks[number]))
                else:
                    self._note(number, error)
            self._progress.tick()

    def _note(self, number: int, error: Exception) -> None:
        if isinstance(error, MissingDependencyError | ConfigError) or (
            isinstance(error, OSError) and error.errno in _NO_ROOM
        ):
            raise error
        self.failures[number] = error
        if number not in self._warned and 1 < len(self._tasks) and len(self._warned) < _MOST_NAMED:
            self._warned.add(number)
            logger.warning("failed, the rest goes on: %s", _told(self._name(self._tasks[number]), error))


def _may_pass(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno not in _LASTING
    return not isinstance(error, InputError)


def _lacked_memory(error: Exception) -> bool:
    return isinstance(error, WorkerLostError | MemoryError)


def _summary(failures: list[tuple[str, Exception]], num_tasks: int) -> Exception:
    """Return the one error for all that failed."""
    summary: InputError | WorkerError
    if len(failures) == 1:
        ((name, error),) = failures
        if isinstance(error, OSError | BertPytorchError) and not isinstance(error, WorkerError):
            return error
        summary = WorkerError(f"{_told(name, error)} What is finished is kept: the same command goes on from there.")
    else:
        kind = InputError if all(isinstance(error, InputError) for _, error in failures) else WorkerError
        lines = list(dict.fromkeys(_told(name, error) for name, error in failures))  # a file may be several tasks
        more = [f"… and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
        summary = kind(
            f"{len(failures)} of {num_tasks} pieces of work failed; the others are done and kept. Mend what is named "
            "here and give the same command again: it does what is missing."
            + "".join(f"\n  - {line}" for line in lines[:_MOST_NAMED] + more)
        )
    summary.__cause__ = failures[0][1]
    return summary


def _told(name: str, error: Exception) -> str:
    if isinstance(error, OSError):
        text = explain_os_error(error)
    elif isinstance(error, BertPytorchError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}."
    return text if text.startswith(tuple(f"{name}{end}" for end in ":, ")) else f"{name}: {text}"
