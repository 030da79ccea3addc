"""What a Dask worker must have in common with this process: the code, and the files under the same paths."""

import functools
import hashlib
import importlib.metadata
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import bert_pytorch
from bert_pytorch.errors import InputError, WorkerError
from bert_pytorch.files import worker_locks

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

_SECONDS_TO_SEE_A_FILE = 5.0
_FILES_LOOKED_FOR = 100
_LIBRARIES = (
    *("numpy", "h5py", "tokenizers", "tokie", "nltk", "nupunkt"),
    *("wikiextractor", "charset-normalizer", "pyarrow", "zstandard"),
)
"""Those whose version can change the bytes of a corpus."""


class Facts(NamedTuple):
    """What a worker says about itself."""

    code: str
    """Digest of the package's source."""
    versions: dict[str, str]
    """Of Python and of the libraries that decide bytes."""
    unseen: list[str]
    """Files and folders that it does not see as this process does."""


def check_workers(client: "Client", admitted: Mapping[Path, str], files: Mapping[Path, int]) -> None:
    """Refuse workers that would make something else, or write it somewhere else.

    Args:
        client: of the cluster.
        admitted: what `files.admit_workers` returned.
        files: input files and their sizes in bytes.

    Raises:
        WorkerError: if a worker lacks this package or has other source code of it.
        InputError: if a worker does not see the files that this process sees.
    """
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


def facts(admitted: Mapping[Path, str], files: Mapping[Path, int]) -> Facts:
    """Describe the process that this is called in.

    Args:
        admitted: folders whose lock file it should see, and the holder that the lock names.
        files: files that it should see, and their sizes in bytes.
    """
    deadline = time.monotonic() + _SECONDS_TO_SEE_A_FILE
    while (unseen := list(_unseen(admitted, files))) and time.monotonic() < deadline:
        time.sleep(0.5)  # a network file system tells news late
    versions = {name: _version(name) for name in _LIBRARIES} | {"Python": platform.python_version()}
    return Facts(digest_of_code(), versions, unseen)


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
def digest_of_code() -> str:
    """Return a hash of the package's source in this process."""
    digest = hashlib.sha256()
    package = Path(bert_pytorch.__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def files_of(task: Any) -> dict[Path, int]:
    """List files that a task names and that exist, with their sizes in bytes; a hundred at most."""
    found: dict[Path, int] = {}
    waiting: list[Any] = [task]
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
