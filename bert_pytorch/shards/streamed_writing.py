"""HDF5 files that grow on disk while they are written, for those too large to be made in memory.

HDF5 answers a failed write with damaged state, and a crash of the process later.  So it writes through Python, and is
told that every write succeeded; what really failed is raised once it has let go of the file.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py

from bert_pytorch.files import atomic_path


class Streamed(NamedTuple):
    """A file that is being written."""

    file: h5py.File
    check: Callable[[], None]
    """Raises the OSError of a write that failed; asked now and then, work on a full disk ends early."""


@contextlib.contextmanager
def streamed_file(path: Path) -> Iterator[Streamed]:
    """Yield an HDF5 file to write; whole or absent, synced to disk.

    Raises:
        OSError: if it cannot be written.
    """
    with atomic_path(path) as temporary, _Unfailing(temporary) as raw:
        try:
            with h5py.File(raw, "w") as file:
                yield Streamed(file, raw.check)
        except Exception:
            raw.check()  # HDF5 may have stumbled over what is not there
            raise
        raw.check()


class _Unfailing(io.FileIO):
    """A new file whose writes seem to succeed; after a failure nothing more is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._failure: OSError | None = None

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        """Write all of `data`, or note why not."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        with self._noting_failure():
            while self._failure is None and len(rest):
                rest = rest[super().write(rest) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the size, or note why not."""
        size = self.tell() if size is None else size
        with self._noting_failure():
            if self._failure is None:
                super().truncate(size)
        return size

    def check(self) -> None:
        """Raise what went wrong."""
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._failure = error
