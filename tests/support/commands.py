"""Running programs as a person does, with a time limit that ends the whole family of processes and nobody else's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.data import REPOSITORY


class Completed(NamedTuple):
    """How a program ended."""

    argv: tuple[str, ...]
    code: int
    """Exit code; negative: the signal that ended it."""
    stdout: str
    stderr: str
    seconds: float

    def __str__(self) -> str:
        ended = f"exit code {self.code} after {self.seconds:.1f} s"
        return f"$ {' '.join(self.argv)}\n{ended}\n-- stdout\n{self.stdout}\n-- stderr\n{self.stderr}"


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> Completed:
    """Run a program with no standard input and return its output.

    Args:
        argv: the program and its words.
        cwd: the folder it runs in; `bert_pytorch` is importable wherever that is.
        env: variables added to this process's own.
        timeout: seconds until its process group is killed.

    Raises:
        TimeoutError: with what it had printed.
    """
    words = tuple(map(str, argv))
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    variables = os.environ | {"PYTHONPATH": path} | dict(env or {})
    started = time.monotonic()
    with subprocess.Popen(
        words,
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_group(process)
            stdout, stderr = process.communicate()
            result = Completed(words, process.returncode, stdout, stderr, time.monotonic() - started)
            raise TimeoutError(f"killed after {timeout} s:\n{result}") from None
        except BaseException:
            kill_group(process)
            raise
    return Completed(words, process.returncode, stdout, stderr, time.monotonic() - started)


def run_python(*words: str | Path, **options: object) -> Completed:
    """Run this test's own Python with `words`; options as for `run`."""
    return run([sys.executable, *words], **options)  # type: ignore[arg-type]


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process started in a session of its own, and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
