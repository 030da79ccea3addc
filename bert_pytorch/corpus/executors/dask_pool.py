"""Workers of a running Dask cluster: the one door to `distributed`.

Before any work `dask_checks` makes sure that they run this very code and see the same files.  A worker that is lost is
Dask's to replace; what it had in work is done again elsewhere.
"""

import contextlib
import logging
import os
import platform
import queue
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_pytorch.corpus.executors.dask_checks import check_workers, digest_of_code, files_of
from bert_pytorch.errors import MissingDependencyError, WorkerError
from bert_pytorch.files import admit_workers
from bert_pytorch.workers.executor import Outcome, WorkerLostError, perform

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

_SECONDS_TO_CONNECT = 10.0
_SECONDS_BETWEEN_LOOKS = 5.0


class DaskPool:
    """An executor that hands tasks to a Dask scheduler.

    Args:
        work: a function of this package, so that workers find it by its name.
        scheduler: address or scheduler file.
        first_task: tells which input files the workers must see.

    Raises:
        MissingDependencyError: without `distributed`.
        WorkerError: if there is no scheduler, no worker, or one that runs other code.
        InputError: if a worker does not see the files that this process sees.
    """

    def __init__(self, work: Callable[[Any], Any], scheduler: str, first_task: Any) -> None:
        self._work, self._scheduler = work, scheduler
        self._admitted = admit_workers()
        self._futures: dict[Any, tuple[int, Future]] = {}
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._threads, self._looked = 0, 0.0
        self._client = _connect(scheduler)
        try:
            _refuse_no_workers(self._client, scheduler)
            check_workers(self._client, self._admitted, files_of(absolute(first_task)))
        except BaseException:
            self._client.close()
            raise

    @property
    def capacity(self) -> int:
        """Two tasks a thread: one in work, one at hand."""
        if time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            before = self._threads
            if not self._count_threads() and before:
                logger.warning(
                    "the Dask scheduler at %s has lost its last worker; waiting for another", self._scheduler
                )
        return max(2 * self._threads, 1)

    def submit(self, number: int, task: Any) -> None:
        """Send a task, its paths absolute."""
        name = f"{getattr(self._work, '__name__', 'work')}-{uuid.uuid4().hex}"
        words = (self._work, absolute(task), self._admitted, digest_of_code())
        future = self._client.submit(_perform, *words, key=name, pure=False)
        self._futures[future.key] = number, future
        future.add_done_callback(self._ended.put)

    def wait(self, seconds: float) -> list[Outcome]:
        """Return the outcomes since the last call.

        Raises:
            WorkerError: if the scheduler is gone.
        """
        ended = []
        try:
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        except queue.Empty:
            pass
        if self._client.status != "running" or any(future.cancelled() for future in ended):
            raise self._gone()
        return [self._outcome(future) for future in ended]

    def _outcome(self, future: "Future") -> Outcome:
        from distributed import CancelledError, KilledWorker

        number, _ = self._futures.pop(future.key)
        try:
            return Outcome(number, *future.result())
        except KilledWorker:
            reason = WorkerLostError(
                "every Dask worker that had it in work was lost; the usual reason is too little memory: start fewer "
                "workers on a machine, or with a larger --memory-limit."
            )
            return Outcome(number, None, reason)
        except CancelledError:
            raise self._gone() from None
        except Exception as error:  # Dask's own: the task could not be sent or read
            return Outcome(number, None, error)

    def _gone(self) -> WorkerError:
        return WorkerError(
            f"the Dask scheduler at {self._scheduler} is gone, or has dropped this work. What is finished is kept: "
            "start it again and give the same command."
        )

    def _count_threads(self) -> int:
        self._threads = sum(self._client.nthreads().values())
        self._looked = time.monotonic()
        return self._threads

    def __enter__(self) -> "DaskPool":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Drop what has not begun; what is in work ends by itself, kept from harm by `files.worker_locks`."""
        try:
            if self._futures and self._client.status == "running":
                self._client.cancel([future for _, future in self._futures.values()], force=True)
        finally:
            self._client.close()


def check_scheduler(scheduler: str) -> None:
    """Make sure that a cluster can be reached and has a worker, which takes a moment.

    Raises:
        MissingDependencyError: without `distributed`.
        WorkerError: if there is no scheduler or no worker.
    """
    with contextlib.closing(_connect(scheduler)) as client:
        _refuse_no_workers(client, scheduler)


def _refuse_no_workers(client: "Client", scheduler: str) -> None:
    if not client.nthreads():
        raise WorkerError(f"the Dask scheduler at {scheduler} has no worker. Start some: {_worker_command(scheduler)}")


def _connect(scheduler: str) -> "Client":
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            f"--scheduler needs distributed, which cannot be imported ({error}): pip install -r requirements-extras.txt"
        ) from error
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # tracebacks of what is told here in a sentence
    where = {"scheduler_file": scheduler} if "://" not in scheduler else {"address": scheduler}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other versions on workers: told by `check_workers`
            return Client(**where, timeout=_SECONDS_TO_CONNECT, set_as_default=False, name="bert_pytorch-corpus")
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"cannot reach a Dask scheduler at {scheduler} within {_SECONDS_TO_CONNECT:.0f} s. Start one: dask "
            f"scheduler; and on each machine: {_worker_command('tcp://HOST:8786')}. Without --scheduler all is "
            "done on this machine."
        ) from error


def _worker_command(scheduler: str) -> str:
    where = scheduler if "://" in scheduler else f"--scheduler-file {scheduler}"
    return f"dask worker {where} --nworkers CORES --nthreads 1"


def _perform(work: Callable[[Any], Any], task: Any, admitted: Mapping[Path, str], code: str) -> Any:
    if digest_of_code() != code:  # a worker that came after the others were checked
        return None, WorkerError(f"a Dask worker on {platform.node()} has other source code of bert_pytorch.")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a thread
    return perform(work, task, admitted)


def absolute(value: Any) -> Any:
    """Return a task with its relative paths made absolute; it may be made of tuples, lists and dicts."""
    if isinstance(value, Path):
        return value.absolute()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(absolute, value))
    if isinstance(value, tuple | list):
        return type(value)(map(absolute, value))
    if isinstance(value, dict):
        return {key: absolute(item) for key, item in value.items()}
    return value
