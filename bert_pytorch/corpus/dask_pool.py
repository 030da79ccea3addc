"""Workers of a running Dask cluster: the one door to `distributed`.

Checked before any work: that the workers run this very code, and see the same files.  A worker that is lost is Dask's
to replace; what it had in work is done again elsewhere.
"""

import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import queue
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import bert_pytorch
from bert_pytorch.corpus.tasks import Outcome, WorkerLostError, perform
from bert_pytorch.errors import InputError, MissingDependencyError, WorkerError
from bert_pytorch.files import admit_workers, worker_locks

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_SEE_A_FILE = 5.0
_SECONDS_BETWEEN_LOOKS = 5.0
_FILES_LOOKED_FOR = 100
_LIBRARIES = ("numpy", "tokenizers", "nltk", "h5py")
"""Those whose version can change the bytes of a corpus."""
_START_WORKERS = "dask worker {} --nworkers CORES --nthreads 1"


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
            if not self._count_threads():
                raise WorkerError(
                    f"the Dask scheduler at {scheduler} has no worker. Start some: {_START_WORKERS.format(scheduler)}"
                )
            _check_workers(self._client, self._admitted, _files(first_task))
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
        words = (self._work, absolute(task), self._admitted, _digest_of_code())
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


class _Facts(NamedTuple):
    """What a worker says about itself."""

    code: str
    """Digest of the package's source."""
    versions: dict[str, str]
    """Of Python and of the libraries that decide bytes."""
    unseen: list[str]
    """Files and folders that it does not see as this process does."""


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
            warnings.simplefilter("ignore")  # other versions on workers: told by `_check_workers`
            return Client(**where, timeout=_SECONDS_TO_CONNECT, set_as_default=False, name="bert_pytorch-corpus")
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"cannot reach a Dask scheduler at {scheduler} within {_SECONDS_TO_CONNECT:.0f} s. Start one: dask "
            f"scheduler; and on each machine: {_START_WORKERS.format('tcp://HOST:8786')}. Without --scheduler all is "
            "done on this machine."
        ) from error


def _check_workers(client: "Client", admitted: Mapping[Path, str], files: Mapping[Path, int]) -> None:
    """Refuse workers that would make something else, or write it somewhere else."""
    here = facts({}, {})
    unfit: dict[str, str] = {}
    unseen: dict[str, str] = {}
    for worker, there in client.run(facts, dict(admitted), dict(files), on_error="return").items():
        if isinstance(there, Exception):
            unfit[worker] = f"cannot import it ({there})"
        elif there.code != here.code:
            unfit[worker] = "has other source code of it"
        elif there.unseen:
            unseen[worker] = ", ".join(there.unseen[:3])
        elif there.versions != here.versions:
            others = [f"{name} {found}" for name, found in there.versions.items() if found != here.versions[name]]
            logger.warning("Dask worker %s has %s, unlike here: bytes may differ", worker, ", ".join(others))
    if unfit:
        raise WorkerError(
            f"Dask workers must run this bert_pytorch ({Path(bert_pytorch.__file__).parent}). Start them in the same "
            f"environment:{_list(unfit)}"
        )
    if unseen:
        raise InputError(
            "Dask workers must see input and output under the same paths as this machine. Use folders on a file system "
            f"that they share:{_list(unseen, 'does not see ')}"
        )
    threads = client.nthreads()
    if many := [worker for worker, number in threads.items() if number > 1]:
        logger.warning("Dask worker %s has several threads, which wait for each other; wanted: --nthreads 1", many[0])
    logger.info("%d Dask workers", len(threads))


def facts(admitted: Mapping[Path, str], files: Mapping[Path, int]) -> _Facts:
    """Describe the process that this is called in.

    Args:
        admitted: folders whose lock file it should see, and the holder that the lock names.
        files: files that it should see, and their sizes in bytes.
    """
    deadline = time.monotonic() + _SECONDS_TO_SEE_A_FILE
    while (unseen := list(_unseen(admitted, files))) and time.monotonic() < deadline:
        time.sleep(0.5)  # a network file system tells news late
    versions = {name: _version(name) for name in _LIBRARIES} | {"Python": platform.python_version()}
    return _Facts(_digest_of_code(), versions, unseen)


def _unseen(admitted: Mapping[Path, str], files: Mapping[Path, int]) -> Iterator[str]:
    for folder, holder in admitted.items():
        try:
            with worker_locks({folder: holder}):
                pass
        except (OSError, WorkerError):
            yield str(folder)
    for path, size in files.items():
        try:
            if path.stat().st_size != size:
                yield str(path)
        except OSError:
            yield str(path)


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _digest_of_code() -> str:
    digest = hashlib.sha256()
    package = Path(bert_pytorch.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _perform(work: Callable[[Any], Any], task: Any, admitted: Mapping[Path, str], code: str) -> Any:
    if _digest_of_code() != code:  # a worker that came after the others were checked
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


def _files(task: Any) -> dict[Path, int]:
    """List files that a task names and that exist, with their sizes."""
    found: dict[Path, int] = {}
    waiting: list[Any] = [absolute(task)]
    while waiting and len(found) < _FILES_LOOKED_FOR:
        value = waiting.pop()
        if isinstance(value, Path) and value.is_file():
            found[value] = value.stat().st_size
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value.values())
    return found


def _list(problems: Mapping[str, str], verb: str = "") -> str:
    lines = [f"\n  - {worker} {verb}{problem}" for worker, problem in problems.items()]
    more = [f"\n  - … and {len(lines) - 10} more"] if len(lines) > 10 else []
    return "".join(lines[:10] + more)
