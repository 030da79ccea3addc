"""A stream of tasks through this process or several, results in the order of the tasks, memory bounded."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bert_pytorch.errors import WorkerError
from bert_pytorch.workers.executor import Executor, InProcess, WorkerLostError
from bert_pytorch.workers.local_pool import LocalPool

Task = TypeVar("Task")
Result = TypeVar("Result")

_WAIT_SECONDS = 1.0


def map_in_order(work: Callable[[Task], Result], tasks: Iterable[Task], processes: int) -> Iterator[Result]:
    """Yield the result of each task in order; at most two tasks a process are taken ahead of what was yielded.

    Args:
        work: with several processes, what can be pickled; each process has a copy of its own.
        tasks: read as they are needed.
        processes: 1 works in this one.

    Raises:
        Exception: what the first task that failed raised, or WorkerError where its process ended.
    """
    remaining = iter(tasks)
    results: dict[int, Any] = {}
    taken = done = in_work = 0
    with _executor(work, processes) as executor:
        while True:
            while in_work < executor.capacity and taken - done < 2 * executor.capacity:
                try:
                    task = next(remaining)
                except StopIteration:
                    break
                executor.submit(taken, task)
                taken += 1
                in_work += 1
            if not in_work:
                return
            for number, result, error in executor.wait(_WAIT_SECONDS):
                if isinstance(error, WorkerLostError):
                    raise WorkerError(f"part {number + 1} of the work: {error}")
                if error is not None:
                    raise error
                in_work -= 1
                results[number] = result
            while done in results:
                yield results.pop(done)
                done += 1


def _executor(work: Callable[[Any], Any], processes: int) -> Executor:
    return LocalPool(work, processes) if processes > 1 else InProcess(work)
