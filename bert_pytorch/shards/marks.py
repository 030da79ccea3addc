"""Marks in the cache: so many bytes are reserved, waited for or promised, as long as the process that says so lives.

A mark is an empty file of that length, locked: the kernel tells those of ended processes.  All but `Mark.close` are
called under the room's lock.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.shards.locks import is_locked

RESERVED, WAITING, PROMISED = ".reserved-", ".waiting-", ".promised-"
"""How the marks' names begin."""


class Mark:
    """One of this process.

    Args:
        folder: of the cache.
        kind: what it says.
        target: of what file or folder.
        size: bytes.
    """

    def __init__(self, folder: Path, kind: str, target: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.since = key_of(target), time.time_ns()
        handle, name = tempfile.mkstemp(prefix=f"{kind}{self.since:020d}-{self.key}-", dir=folder)
        self._path, self._file = Path(name), os.fdopen(handle, "wb")  # freed also where nobody closes it
        try:
            os.fchmod(handle, 0o644)  # others who share the folder ask for its lock
            os.truncate(handle, size)
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            self.close()
            error.filename = str(target)
            raise

    def grant(self) -> None:
        """Turn what waits into what is reserved."""
        self._path = self._path.replace(self._path.with_name(self._path.name.replace(WAITING, RESERVED, 1)))

    def close(self) -> None:
        """Take it back."""
        self._path.unlink(missing_ok=True)
        self._file.close()


class Living(NamedTuple):
    """What a mark says whose process lives."""

    since: int
    """Nanoseconds; whoever came first goes first."""
    key: str
    """Of what, see `key_of`."""
    size: int
    """Bytes."""


def living(folder: Path, kind: str) -> Iterator[Living]:
    """Yield the marks of living processes and remove those of others.

    A file system without locks tells of nobody: better too many files in the cache than one that waits for the dead.
    """
    for file in folder.glob(f"{kind}*-*-*"):
        since, key, _ = file.name.removeprefix(kind).split("-", 2)
        with contextlib.suppress(OSError), file.open("rb") as mark:
            if is_locked(mark.fileno()):
                yield Living(int(since), key, file.stat().st_size)
            else:
                file.unlink()


def key_of(target: Path) -> str:
    """Return by what a mark's name says what it is for: 16 hexadecimal digits."""
    return hashlib.sha256(os.fsencode(target.absolute())).hexdigest()[:16]
