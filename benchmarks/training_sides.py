"""The sides of a training benchmark: programs that train, side by side, of which only one runs at a time.

Each is started once, warms up and is then stopped by SIGSTOP; a turn lets it go on for some updates.  The programs
know nothing of it: each writes a line for every update, and the update that a stop has cut in two is left out.
"""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from benchmarks.process_tree import REPOSITORY

_POLL_SECONDS = 0.01
_START_SECONDS = 600


class Step(NamedTuple):
    """One update of a side."""

    seconds: float
    """Since the update before, waiting for data included."""
    tokens: int
    """Real input tokens."""
    flops: float
    """Model FLOPs by the formula."""


class Turn(NamedTuple):
    """What a side did while it was its turn."""

    steps: list[Step]
    cpu_seconds: float
    """Processor time of all its threads, user and system."""

    @property
    def tokens_per_cpu_second(self) -> float:
        """Real tokens."""
        return sum(step.tokens for step in self.steps) / self.cpu_seconds

    @property
    def tokens_per_second(self) -> float:
        """Real tokens."""
        return sum(step.tokens for step in self.steps) / self.seconds

    @property
    def flops_per_second(self) -> float:
        """Model FLOPs."""
        return sum(step.flops for step in self.steps) / self.seconds

    @property
    def seconds(self) -> float:
        """Of all updates."""
        return sum(step.seconds for step in self.steps)


class Command(NamedTuple):
    """How a side is started and understood."""

    words: Sequence[str]
    folder: Path
    """Where it is started."""
    rows: Path
    """The file that it appends a line of JSON to for each update."""
    read: Callable[[dict[str, Any]], Step | None]
    """Makes a line a step; None for lines that are no update.  Called once for each line, in order."""
    environment: Mapping[str, str] = MappingProxyType({})
    """Variables beside this process's own."""


class Side:
    """A program that trains.

    Args:
        name: for messages.
        command: what is started.
        log: file of what it prints.
        patience: seconds without news after which it counts as failed.
    """

    def __init__(self, name: str, command: Command, log: Path, patience: float = _START_SECONDS) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._rows_read = 0
        self._patience = patience
        command.rows.unlink(missing_ok=True)
        # PYTHONPATH stays (a machine without our packages has them there): what a program lies beside comes before it.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **command.environment}
        self._started = time.perf_counter()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command.words,
                cwd=command.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.start_seconds = 0.0
        """From its start to the end of its first update."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def warm_up(self, updates: int) -> None:
        """Let it start and take some updates, then stop it."""
        steps = self._steps(self._patience)
        next(steps)
        self.start_seconds = time.perf_counter() - self._started
        for _ in range(updates - 1):
            next(steps)
        self._signal(signal.SIGSTOP)

    def follow(self, seconds: float) -> Iterator[tuple[float, Step]]:
        """Yield its updates, each with the seconds from the start to its end, until so many seconds after the start."""
        while (left := self._started + seconds - time.perf_counter()) > 0:
            for step in self._new_steps():
                yield time.perf_counter() - self._started, step
            if self._process.poll() is not None:
                raise self._failure()
            time.sleep(min(_POLL_SECONDS, left))

    def take_turn(self, seconds: float, updates: int) -> Turn:
        """Let it go on until it has taken so many updates that lasted so long together, then stop it."""
        taken: list[Step] = []
        collections.deque(self._new_steps(), maxlen=0)  # updates that ended just before the stop
        self._signal(signal.SIGCONT)
        steps = self._steps(self._patience)
        next(steps)  # the one that the stop before has cut in two
        cpu_before = self._cpu_seconds()
        for step in steps:
            taken.append(step)
            if len(taken) >= updates and sum(each.seconds for each in taken) >= seconds:
                break
        self._signal(signal.SIGSTOP)
        return Turn(taken, self._cpu_seconds() - cpu_before)

    def peak_mib(self) -> float:
        """Return the most memory that it has had resident so far."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def _steps(self, patience: float) -> Iterator[Step]:
        while True:
            yield from self._new_steps()
            waited = 0.0
            while not self._has_news():
                if self._process.poll() is not None or waited > patience:
                    raise self._failure()
                time.sleep(_POLL_SECONDS)
                waited += _POLL_SECONDS

    def _failure(self) -> SystemExit:
        words = " ".join(self._command.words)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return SystemExit(f"error: {self.name} ended or stands still: {words}\n{tail}")

    def _has_news(self) -> bool:
        rows = self._command.rows
        return rows.exists() and rows.stat().st_size > self._rows_read

    def _new_steps(self) -> Iterator[Step]:
        """Yield the steps of lines that were not read so far."""
        if not self._command.rows.exists():
            return
        with self._command.rows.open("rb") as file:
            file.seek(self._rows_read)
            while (line := file.readline()).endswith(b"\n"):
                self._rows_read = file.tell()
                step = self._command.read(json.loads(line))
                if step is not None:
                    yield step


def ours(
    checkout: Path,
    options: Sequence[str],
    output_dir: Path,
    read: Callable[[dict[str, Any]], Step | None] = lambda _: None,
) -> Command:
    """Return the shipped entry point of a checkout, with checkpoints off."""
    words = [sys.executable, str(checkout.resolve() / "run_pretraining.py"), *options]
    words += ["--output_dir", str(output_dir), "--overwrite", "--skip_checkpoint", "--disable_progress_bar"]
    return Command(words, checkout.resolve(), output_dir / "metrics.jsonl", read)


def peer(options: Sequence[str], output_dir: Path) -> Command:
    """Return Hugging Face's Trainer."""
    words = [sys.executable, "-m", "benchmarks.training_peer", *options, "--output_dir", str(output_dir)]
    return Command(words, REPOSITORY, output_dir / "steps.jsonl", lambda row: Step(**row))
