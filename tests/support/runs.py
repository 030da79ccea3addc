"""Running run_pretraining.py from tests: within this process for speed, or as a program where processes matter."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch

from bert_pytorch import convert
from bert_pytorch.errors import front_door
from bert_pytorch.pretraining.main import main
from tests.support.slurm import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]


class Outcome(NamedTuple):
    """How a program ended and what it said."""

    code: int
    out: str
    err: str


def words(flags: Mapping[str, Any]) -> list[str]:
    """Spell flags as command-line words; True and False as --x and --no-x, None leaves a flag out."""
    spelled: list[str] = []
    for name, value in flags.items():
        if value is None:
            continue
        spelled += [f"--{name}" if value else f"--no-{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    return spelled


def run_here(program: Any, argv: Sequence[str]) -> Outcome:
    """Call a front door's `main` in this process, as `argv` would."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        with (
            mock.patch.object(sys, "argv", ["program", *argv]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                code = front_door(program)
            except SystemExit as stop:
                code = int(stop.code or 0)
    finally:
        torch.set_flush_denormal(False)  # the run's choice is this process's as well, and other tests need denormals
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(code, out.getvalue(), err.getvalue())


def pretrain_here(**flags: Any) -> Outcome:
    """Run pretraining in this process."""
    return run_here(main, words(flags))


def convert_here(*words: str | Path) -> Outcome:
    """Run `python -m bert_pytorch.convert` in this process."""
    return run_here(convert.main, list(map(str, words)))


def pretraining_command(**flags: Any) -> list[str]:
    """Return the command that starts pretraining as a program."""
    return [sys.executable, str(REPOSITORY / "run_pretraining.py"), *words(flags)]


def torchrun(ranks: int, **flags: Any) -> list[str]:
    """Return the command that starts pretraining on several ranks of this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    return [*launcher, *pretraining_command(**flags)[1:]]


def environment(**extra: str) -> dict[str, str]:
    """Return the environment for programs: this repository importable, one thread a process (bitwise repeatable)."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **extra}


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, **extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a process group of its own, its output going to `log`; the group is ended on leaving."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment(**extra), start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def started_ranks(commands: Sequence[Sequence[str]], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start one program a rank, as torchrun's workers are; all are ended on leaving."""
    (port,) = free_ports(1)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(commands))}
    with contextlib.ExitStack() as ranks:
        yield [
            ranks.enter_context(started(command, log, RANK=str(rank), LOCAL_RANK=str(rank), **meeting))
            for rank, command in enumerate(commands)
        ]


def run_ranks(commands: Sequence[Sequence[str]], log: Path, seconds: float = 120) -> None:
    """Run one program a rank until all have ended well."""
    with started_ranks(commands, log) as processes:
        for process in processes:
            assert process.wait(seconds) == 0, log.read_text()


def run_program(command: Sequence[str], timeout: float = 300, **extra: str) -> Outcome:
    """Run a program to its end."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=environment(**extra), check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def wait_until(condition: Any, seconds: float, what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.02)


def metrics(run: Path, event: str) -> list[dict[str, Any]]:
    """Return the rows of one kind in metrics.jsonl."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row["event"] == event]


def checkpoint(run: Path, step: int) -> dict[str, Any]:
    """Read a checkpoint as anybody would."""
    state: dict[str, Any] = torch.load(run / "pretrain_ckpts" / f"ckpt_{step}.pt", weights_only=True)
    return state


def assert_same_state(one: Any, other: Any, where: str = "state") -> None:
    """Compare nested states bit by bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), f"{where} differs"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same_state(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (first, second) in enumerate(zip(one, other, strict=True)):
            assert_same_state(first, second, f"{where}[{index}]")
    else:
        assert one == other, where
