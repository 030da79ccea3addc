"""Files that are either whole or absent: atomic writing, checksums, and the lock on an output folder."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_pytorch.errors import InputError

TEMPORARY_PREFIX = ".partial-"
"""Names of unfinished files start so; nothing reads them, and `remove_partial_files` clears them after a kill."""


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

    Raises:
        InputError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock_path = folder / ".lock"
    with lock_path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise InputError(
                f"{folder}: {holder} is writing here; two {what} in one folder would destroy each other's work. "
                "Wait for it to end, or choose another folder."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}")
        lock.flush()
        yield


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
    mask = os.umask(0)
    os.umask(mask)
    return mask
