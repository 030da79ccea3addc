"""What a person is told when something cannot go on, and with which exit code the program ends.

Every message says what is wrong, the value found, the value wanted and the next thing to do.  `front_door` wraps each
`main()`: our own errors become one message on standard error, never a traceback; defects of our own keep theirs.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75
"""Stopped on request before the end, state saved: start again to continue (EX_TEMPFAIL of sysexits.h)."""


class BertPytorchError(Exception):
    """An error a person can cause and mend; its text is a whole message."""

    exit_code = EXIT_FAILED


class ConfigError(BertPytorchError):
    """Wrong arguments or configuration; holds all problems of one layer."""

    exit_code = EXIT_USAGE

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        body = self.problems[0] if len(self.problems) == 1 else "".join(f"\n  - {problem}" for problem in self.problems)
        super().__init__(f"{where}: {body}")


class InputError(BertPytorchError):
    """A file or folder that cannot be used as it is."""


class DamagedShardError(InputError):
    """A shard whose bytes are not what was written."""

    def __init__(self, message: str, path: Path, row: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.row = row

    def __reduce__(self) -> tuple[type["DamagedShardError"], tuple[str, Path, int | None]]:
        """Let it come back from a worker process."""
        return type(self), (str(self), self.path, self.row)


class MissingDependencyError(BertPytorchError):
    """An optional library that the asked-for feature needs; raised `from` the ImportError."""


class ToldElsewhereError(BertPytorchError):
    """Another rank met the error and tells it; this one ends quietly, with the same exit code."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class TrainingDivergedError(BertPytorchError):
    """Losses or gradients stayed non-finite; the last good checkpoint is kept."""


class WorkerError(BertPytorchError):
    """A worker process failed; names the piece of work and the reason."""


def explain_os_error(error: OSError) -> str:
    """Say what the operating system refused, for which path, and what to do about it."""
    path = error.filename if error.filename is not None else "an output file"
    advice = {
        errno.ENOSPC: "the disk is full. Free some space or choose another folder, then start again",
        errno.EDQUOT: "the disk quota is used up. Free some space or choose another folder, then start again",
        errno.EACCES: "permission denied. Choose a folder you may write to, or change its permissions",
        errno.EPERM: "not permitted. Choose a folder you may write to, or change its permissions",
        errno.EROFS: "the file system is read-only. Choose a folder you may write to",
        errno.ENOENT: "no such file or directory. Check the spelling of the path",
        errno.ENOTDIR: "a part of the path is a file where a folder is wanted. Choose another path",
        errno.EISDIR: "it is a folder where a file is wanted. Name a file inside it",
        errno.EEXIST: "it exists already and is not a folder. Choose another path",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"{path}: {advice}."


def front_door(main: Callable[[], int | None]) -> int:
    """Run a program's `main` and return its exit code; errors people can cause become one message.

    Args:
        main: does the work; returns an exit code, or None for 0.

    Returns:
        0 done, 2 wrong arguments or config, 75 stopped on request with the state saved, 1 everything else.
    """
    try:
        return main() or EXIT_DONE
    except BertPytorchError as error:
        report(str(error))
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away (| head); nothing is left to tell it
        return EXIT_FAILED
    except OSError as error:
        report(explain_os_error(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        report("interrupted from the keyboard; what was saved before is whole. Start again to continue.")
        return EXIT_FAILED


def report(message: str) -> None:
    """Print one error message to standard error."""
    print(f"error: {message}", file=sys.stderr, flush=True)  # noqa: T201
