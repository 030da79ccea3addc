"""Work spread over processes: the same results in the same order whatever their number, failures named."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import BertPytorchError, WorkerError
from bert_pytorch.progress import Progress

Task = TypeVar("Task")
Result = TypeVar("Result")


class PoolConfig(Settings):
    """How work is spread."""

    processes: int = Field(0, ge=0)
    """Worker processes; 0 takes every core this program may run on. The result does not depend on it."""


def num_processes(config: PoolConfig) -> int:
    """Return the number of processes that a configuration asks for."""
    return config.processes or len(os.sched_getaffinity(0))


def run_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    pool: PoolConfig,
    name: Callable[[Task], str],
    progress: Progress,
    size: Callable[[Task], int],
) -> list[Result]:
    """Call `work` on every task; results come in the order of tasks.

    Args:
        work: a function of a module, so that it can be sent to a process.
        tasks: what to call it with.
        pool: how many processes; with one, or a single task, all happens in this process.
        name: says what a task works on, for messages.
        progress: told the size of each finished task.
        size: of a task, in the unit of `progress`.

    Raises:
        BertPytorchError, OSError: what a task raised; the others are given up.
        WorkerError: if a task failed otherwise or its process was killed.
    """
    processes = num_processes(pool)
    if processes == 1 or len(tasks) <= 1:
        results = []
        for task in tasks:
            results.append(_named(lambda task=task: work(task), name(task)))  # type: ignore[misc]
            progress.advance(size(task))
        return results
    context = multiprocessing.get_context("spawn")  # forked children inherit HDF5's and the tokenizer's locked threads
    with ProcessPoolExecutor(min(processes, len(tasks)), context, initializer=_prepare_worker) as workers:
        futures = {workers.submit(work, task): task for task in tasks}
        try:
            _collect(futures, name, progress, size)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            for process in list((workers._processes or {}).values()):
                process.terminate()
            raise
        return [future.result() for future in futures]


def _collect(
    futures: dict[Future[Result], Task], name: Callable[[Task], str], progress: Progress, size: Callable[[Task], int]
) -> None:
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
        broken = [future for future in done if isinstance(future.exception(), BrokenProcessPool)]
        for future in done.difference(broken):
            _named(future.result, name(futures[future]))
            progress.advance(size(futures[future]))
        if broken:
            raise WorkerError(
                f"a worker process was killed while {name(futures[broken[0]])} or another piece was in work; the usual "
                "reason is too little memory. What is finished is kept: start again with fewer --processes."
            )


def _named(call: Callable[[], Result], name: str) -> Result:
    try:
        return call()
    except (BertPytorchError, OSError):
        raise
    except Exception as error:
        raise WorkerError(f"{name}: {type(error).__name__}: {error}") from error


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process
    logging.getLogger().setLevel(logging.WARNING)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # the parent was killed: waiting for its next task would last for ever
