"""Running the commands of a job: signals go down, exit codes come up, none is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

from bert_pytorch.errors import BertPytorchError
from bert_pytorch.launch.config import say

POLL_SECONDS = 0.1
_OWN = (
    "HOSTNAME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "_",
    "DISPLAY",
    "TMPDIR",
    "SLURMD_NODENAME",
    "SSH_",
    "XDG_",
    "PMI",
    "OMPI_",
)
"""Variables, or how they begin, that belong to a machine or process and are not carried to another."""


class Command(NamedTuple):
    """One command to run beside others."""

    name: str
    """For messages: a machine, or the program that starts all."""
    argv: Sequence[str]
    stop_signal: signal.Signals
    """What asks it to stop."""
    order: str | None = None
    """First line of its input, for `on_node.py`; it then reads signals there."""


class Stopping:
    """Notes signals that ask the launcher to stop."""

    def __init__(self) -> None:
        self.asked = False
        self.insisted = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take over the signals for a while."""
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)  # SGE warns by USR2
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.insisted = self.asked and number == signal.SIGINT
        self.asked = True


def run_commands(commands: Sequence[Command], stopping: Stopping, grace_seconds: float) -> int:
    """Run commands side by side until all have ended.

    A request to stop is passed on once; the second Ctrl-C ends everything.  When one command fails, the others have
    `grace_seconds` to end by themselves, and then as long again after they were asked to.

    Returns:
        The first exit code that was not 0; of a command ended by a signal 128 + its number.
    """
    with contextlib.ExitStack() as held:
        processes = {command.name: held.enter_context(_started(command)) for command in commands}
        told = False
        failed: int | None = None
        deadline = float("inf")
        while any(process.poll() is None for process in processes.values()):
            for name, process in processes.items():
                if failed is None and process.poll() not in (None, 0):
                    failed = _code(process)
                    deadline = time.monotonic() + grace_seconds
                    if len(commands) > 1 and not stopping.asked:
                        say(f"{name}: ended with exit code {failed}; the others have {grace_seconds:g} s to end")
            if (stopping.asked or time.monotonic() > deadline) and not told:
                told, deadline = True, time.monotonic() + grace_seconds + 10
                for command in commands:
                    _tell(command, processes[command.name])
            elif stopping.insisted or (told and time.monotonic() > deadline):
                break
            time.sleep(POLL_SECONDS)
        else:
            codes = [_code(process) for process in processes.values()]
            return failed or next((code for code in codes if code), 0)
        say("some processes did not end in time; they are killed")
    return failed or 1


def order_for_node(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    """Return the line by which `on_node.py` knows what to run."""
    carried = {name: value for name, value in environment.items() if not name.startswith(_OWN)}
    return json.dumps({"argv": list(argv), "folder": str(folder), "environment": carried})


@contextlib.contextmanager
def _started(command: Command) -> Iterator["subprocess.Popen[str]"]:
    stdin = subprocess.DEVNULL if command.order is None else subprocess.PIPE
    try:
        # A session of its own: Ctrl-C reaches the launcher alone, which passes it on once.
        process = subprocess.Popen(list(command.argv), stdin=stdin, text=True, start_new_session=True)
    except FileNotFoundError:
        raise BertPytorchError(
            f"{command.argv[0]}: this program is not in PATH; install it or load its module."
        ) from None
    try:
        if command.order is not None:
            _write(process.stdin, command.order)
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        process.wait()


def _tell(command: Command, process: "subprocess.Popen[str]") -> None:
    if process.poll() is not None:
        return
    if command.order is None:
        process.send_signal(command.stop_signal)
    else:
        _write(process.stdin, command.stop_signal.name)


def _write(pipe: IO[str] | None, line: str) -> None:
    assert pipe is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended; its exit code says why
        pipe.write(line + "\n")
        pipe.flush()


def _code(process: "subprocess.Popen[str]") -> int:
    code = process.wait()
    return code if code >= 0 else 128 - code
