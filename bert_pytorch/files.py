"""Files that are either whole or absent: atomic writing, checksums, and the lock on an output folder."""

import contextlib
import datetime
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from bert_pytorch.errors import InputError, WorkerError

logger = logging.getLogger(__name__)

TEMPORARY_PREFIX = ".partial-"
"""Names of unfinished files start so; nothing reads them, and `remove_partial_files` clears them after a kill."""

_LOCK, _WORKERS_LOCK = ".lock", ".lock-workers"
_LONGEST_WAIT_SECONDS = 600.0
_held: dict[Path, str] = {}
"""Folders that this process has locked, and what their lock says."""
_umask_lock = threading.Lock()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`, else removed.

    A reader sees the old file or the new one, never a part; a crash of the machine right after leaves the same choice.
    """
    with _errors_naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        ending = path.name[-40:]  # the system limits a name to 255 bytes, and four may be one character
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix="-" + ending, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes 0600, which hides the file from the folder's group
            move_into_place(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name, once its bytes are on disk; both names are on one file system."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


@contextlib.contextmanager
def atomic_files(folder: Path, sign: str) -> Iterator[Path]:
    """Yield a temporary folder; on success its files are moved into `folder`, else removed and `folder` is as before.

    Other files in `folder` stay.  Readers know a whole set by the file `sign`: it is taken away first
    and comes last.

    Args:
        folder: made where it does not exist.
        sign: name of one of the files.
    """
    with _errors_naming(folder):
        was_there = folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder))
        try:
            yield temporary
            written = sorted(temporary.iterdir(), key=lambda path: path.name == sign)
            for path in written:
                path.chmod(0o666 & ~_umask())
                _sync(path)
            (folder / sign).unlink(missing_ok=True)
            _sync(folder)
            for path in written:
                path.replace(folder / path.name)
            _sync(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if not was_there:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # only an empty folder goes, one that holds nothing because of a failure


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values are equal bytes."""
    atomic_write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writers left directly in `folder`; call it only while holding the folder's lock."""
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; memory use does not depend on its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def exclusive_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold the one writer's lock on `folder`; the kernel frees it when this process ends, however it ends.

    Workers that an earlier holder admitted (`admit_workers`) and that are still writing are waited for.

    Raises:
        InputError: if another process holds it, or such workers do not come to an end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise InputError(
                f"{folder}: {holder} is writing here; two {what} in one folder would destroy each other's work. "
                "Wait for it to end, or choose another folder."
            ) from None
        now = datetime.datetime.now(datetime.UTC).isoformat()
        holder = f"process {os.getpid()} on {os.uname().nodename} since {now}"
        lock.truncate(0)
        lock.write(holder)
        lock.flush()
        os.fsync(lock.fileno())  # workers on other machines read it
        _wait_for_workers(folder)
        _held[folder.absolute()] = holder
        try:
            yield
        finally:
            del _held[folder.absolute()]
            _dismiss_workers(folder)


def admit_workers() -> dict[Path, str]:
    """Let other processes write in the folders that this one has locked; return each folder and its holder."""
    for folder in _held:
        (folder / _WORKERS_LOCK).touch()
    return dict(_held)


@contextlib.contextmanager
def worker_locks(admitted: Mapping[Path, str]) -> Iterator[None]:
    """Write, in a worker, in folders that `admit_workers` named: nobody else takes them over meanwhile.

    A worker can outlive its holder, on another machine by hours; where a later one holds the folder, or where
    the work has ended, it is sent away.

    Raises:
        WorkerError: if a folder is not, or no more, held by the one who admitted this worker.
    """
    with contextlib.ExitStack() as held:
        for folder, holder in admitted.items():
            try:
                lock = held.enter_context((folder / _WORKERS_LOCK).open("rb"))
                fcntl.flock(lock, fcntl.LOCK_SH)
                found = (folder / _LOCK).read_text()
            except FileNotFoundError:
                found = "nobody"
            if found != holder:
                raise WorkerError(f"{folder}: it is held by {found}, not by {holder} who sent this work; left alone.")
        yield


def _wait_for_workers(folder: Path) -> None:
    """Return once no worker of an earlier holder writes; those that come later find another holder and go."""
    try:
        lock = (folder / _WORKERS_LOCK).open("r+b")
    except FileNotFoundError:
        return
    with lock:
        deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
        while not _lock_at_once(lock):
            if time.monotonic() > deadline:
                raise InputError(
                    f"{folder}: workers of an earlier start are still writing here. End them, or choose another folder."
                )
            logger.info("%s: waiting for workers of an earlier start to end", folder)
            time.sleep(1)


def _dismiss_workers(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError), (folder / _WORKERS_LOCK).open("r+b") as lock:
        if _lock_at_once(lock):
            (folder / _WORKERS_LOCK).unlink()


def _lock_at_once(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Let the system's errors name `path`: a failed write() names no file, others the temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or TEMPORARY_PREFIX in str(error.filename)):
            error.filename, error.filename2 = str(path), None
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    with _umask_lock:  # two threads between these lines would leave the process without a mask
        mask = os.umask(0)
        os.umask(mask)
    return mask
