"""The console log: where the package's log lines go while a run lasts.

Rank 0 prints them to standard output (warnings and errors to standard error), above a progress bar if there is one, and
appends them with the time to `{log_prefix}.txt`.  Other ranks print their warnings with
their number, so that none is lost.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

PACKAGE = "bert_pytorch"

BAR_SHOWS_IT = "bar_shows_it"
"""`extra` key of log records that a progress bar makes superfluous on the terminal."""


@contextlib.contextmanager
def console_log(path: Path | None, *, rank: int = 0) -> Iterator[None]:
    """Send the package's log lines to the console and append them to a file, until the context ends.

    Args:
        path: the log file; None for no file.
        rank: of this process; only rank 0 prints all lines and writes the file.
    """
    handlers: list[logging.Handler] = [_Console(rank)]
    if rank == 0 and path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_LogFile(path, encoding="utf-8"))
    package = logging.getLogger(PACKAGE)
    level_before = package.level
    package.setLevel(logging.INFO)
    for handler in handlers:
        package.addHandler(handler)
    try:
        yield
    finally:
        package.setLevel(level_before)
        for handler in handlers:
            package.removeHandler(handler)
            handler.close()


class _Console(logging.Handler):
    """Standard output and standard error, with the progress bar kept on the last line."""

    def __init__(self, rank: int) -> None:
        super().__init__(logging.INFO if rank == 0 else logging.WARNING)
        self._prefix = "" if rank == 0 else f"[rank {rank}] "

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        if getattr(record, BAR_SHOWS_IT, False):
            return
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        tqdm.write(self._prefix + _level(record) + record.getMessage(), file=stream)
        stream.flush()  # a pipe to tee or to a batch system's log is not a terminal, but somebody reads along


class _LogFile(logging.FileHandler):
    """The log file; a full disk is an error of the run, not a traceback among its output."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the local time before the line."""
        time = logging.Formatter().formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{time}  {_level(record)}{record.getMessage()}"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        """Raise what `emit` caught."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, self.baseFilename) from error
        super().handleError(record)

    def close(self) -> None:
        """Close the file; what could not be written was an error when its line was logged."""
        with contextlib.suppress(OSError):
            super().close()


def _level(record: logging.LogRecord) -> str:
    return f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
