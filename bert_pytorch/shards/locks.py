"""Locks on files of the cache that processes share; the kernel frees those of processes that ended, however they did.

On a file system without locks work is done twice, and what is in use may be removed: then it is made ready again.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_IN_USE = ".in-use"


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process or thread at a time make a file, so that the ranks share the work; 256 locks serve all files."""
    key = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()[:2]
    with locked(target.parent / f".lock-{key}"):
        yield


@contextlib.contextmanager
def locked(lock_file: Path, level: int = logging.INFO) -> Iterator[None]:
    """Hold a lock for the block; waits until whoever holds it ends, and says so in the log, on that level."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a") as lock:
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.log(level, "waiting for another process that makes the same ready in %s", lock_file.parent)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_locked(descriptor: int) -> bool:
    """Tell whether somebody else holds the lock of a file that is open to read.

    Raises:
        OSError: where there are no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # NFS wants files open to write for the other kind
    except BlockingIOError:
        return True
    return False


class InUse:
    """Files of one folder that this reader uses: other processes, and other readers of this one, do not remove them.

    Each file is a byte of one lock file, by a hash of its name, so that any number of files takes one descriptor
    (open file description locks, fcntl(2)).
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _IN_USE
        self._descriptor: int | None = None
        self.names: frozenset[str] = frozenset()

    def add(self, name: str) -> None:
        """Use a file; waits while it is being removed.  It need not be there."""
        if name in self.names:
            return
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):
            _lock_byte(self._descriptor, fcntl.F_OFD_SETLKW, fcntl.F_RDLCK, name)
        self.names |= {name}

    def keep_only(self, names: frozenset[str]) -> None:
        """Let go of all files but these."""
        for name in self.names - names:
            if self._descriptor is not None:
                with contextlib.suppress(OSError):
                    _lock_byte(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, name)
        self.names &= names

    def close(self) -> None:
        """Let go of all files."""
        descriptor, self._descriptor, self.names = self._descriptor, None, frozenset()
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def unused(file: Path) -> Iterator[bool]:
    """Tell whether nobody uses a file, and let nobody begin to during the block."""
    try:
        descriptor = os.open(file.parent / _IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        try:
            _lock_byte(descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, file.name)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True
    finally:
        os.close(descriptor)


def _lock_byte(descriptor: int, command: int, kind: int, name: str) -> None:
    place = int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:7])
    fcntl.fcntl(descriptor, command, struct.pack("hhqqi4x", kind, os.SEEK_SET, place, 1, 0))  # struct flock
