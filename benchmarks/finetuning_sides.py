"""The two sides of a comparison of fine-tuning: the shipped programs here, `Trainer` in benchmarks.finetuning_peer.

Both are given the same words and write the same rows: one for each update, one for each evaluation.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.process_tree import REPOSITORY

SideName = Literal["ours", "huggingface"]
SIDES: tuple[SideName, SideName] = ("ours", "huggingface")
ROWS = "metrics.jsonl"
_POLL_SECONDS = 0.02


class Point(NamedTuple):
    """An evaluation on the way."""

    seconds: float
    """Of training until then: wall clock of all updates, data included, evaluations not."""
    metrics: dict[str, float]


class Run(NamedTuple):
    """One training."""

    updates: list[dict[str, Any]]
    """Their rows: `loss` and `step_seconds` at least."""
    points: list[Point]
    cpu_seconds: float
    """Processor time of the process between the first row and the last, without evaluations."""

    @property
    def seconds(self) -> float:
        """Of all updates."""
        return sum(row["step_seconds"] for row in self.updates)


def train(side: SideName, program: str, flags: Mapping[str, object], output_dir: Path) -> Run:
    """Run one side to its end.

    Args:
        side: which.
        program: `squad`, `ner` or `glue`.
        flags: its options but the output folder.
        output_dir: made anew.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    start = (
        [str(REPOSITORY / f"run_{program}.py"), "--skip_checkpoint", "--overwrite", "--disable_progress_bar"]
        if side == "ours"
        else ["-m", "benchmarks.finetuning_peer", program]
    )
    words = [sys.executable, *start, *spelled({**flags, "output_dir": output_dir})]
    log = output_dir.with_suffix(".log")
    rows = output_dir / ROWS
    rows.unlink(missing_ok=True)
    with (
        log.open("wb") as file,
        subprocess.Popen(
            words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # on both sides
        ) as process,
    ):  # fmt: skip
        cpu_seconds = _cpu_of_updates(process, rows)
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"error: {side} ended with code {process.returncode}: {' '.join(words)}\n{tail}")
    shutil.rmtree(output_dir / "model", ignore_errors=True)  # up to 1.3 GB, which nobody reads
    return read_run(rows)._replace(cpu_seconds=cpu_seconds)


def _cpu_of_updates(process: subprocess.Popen[bytes], rows: Path) -> float:
    """Watch a side to its end: sum the processor time before each row of an update, from the row before it on."""
    total, read = 0.0, 0
    before: float | None = None
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        if not rows.exists() or rows.stat().st_size == read:
            continue
        now = _cpu_seconds(process.pid)
        with rows.open("rb") as file:
            file.seek(read)
            lines = [line for line in file.readlines() if line.endswith(b"\n")]
        read += sum(map(len, lines))
        if before is not None and any(b'"event": "train"' in line for line in lines):
            total += now - before
        before = now
    return total


def _cpu_seconds(pid: int) -> float:
    """Return user and system time of a process that is not waited for yet."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, proc(5)


def spelled(flags: Mapping[str, object]) -> list[str]:
    """Return options as words of a command line."""
    words: list[str] = []
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            values: Sequence[object] = value if isinstance(value, tuple) else (value,)
            words += [f"--{name}", *map(str, values)]
    return words


def read_run(path: Path) -> Run:
    """Read what a side wrote."""
    updates: list[dict[str, Any]] = []
    points: list[Point] = []
    seconds = 0.0
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["event"] == "train":
            updates.append(row)
            seconds += row["step_seconds"]
        elif row["event"] == "eval":
            points.append(Point(seconds, {name: row[name] for name in row if isinstance(row[name], float)}))
    return Run(updates, points, 0.0)
