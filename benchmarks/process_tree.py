"""Running a program and watching the memory of its whole family of processes."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.05


class Watched(NamedTuple):
    """How a run went."""

    seconds: float
    main_mib: float
    """Peak resident memory of the program itself."""
    worker_mib: float
    """Largest peak resident memory of any process that it started."""
    killed: bool


def corpus_command(*words: object) -> list[str]:
    """Return the words that call `python -m bert_pytorch.corpus`."""
    return [sys.executable, "-m", "bert_pytorch.corpus", *map(str, words)]


def watch(
    command: Sequence[str],
    kill_after: float | None = None,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Watched:
    """Run a program from the repository and return its time and peak memory.

    Args:
        command: the program and its words.
        kill_after: seconds until the program itself, not its workers, gets SIGKILL.
        log: where its output goes; None drops it.
        environment: variables added to ours.

    Raises:
        RuntimeError: if it fails by itself.
    """
    output = log.open("ab") if log is not None else subprocess.DEVNULL
    start = time.perf_counter()
    variables = {**os.environ, **(environment or {})}
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=variables)
    peaks: dict[int, int] = {}
    done = threading.Event()
    watcher = threading.Thread(target=_poll, args=(process.pid, peaks, done))
    watcher.start()
    killed = False
    try:
        process.wait(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        killed = True
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if process.returncode and not killed:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}; see {log}")
    own = peaks.pop(process.pid, 0)
    return Watched(seconds, own / 1024, max(peaks.values(), default=0) / 1024, killed)


def _poll(root: int, peaks: dict[int, int], done: threading.Event) -> None:
    while not done.wait(_POLL_SECONDS):
        for pid in _family(root):
            peaks[pid] = max(peaks.get(pid, 0), _status(pid).get("VmHWM", 0))


def _family(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parents[int(entry.name)] = _status(int(entry.name)).get("PPid", 0)
    family = [root]
    for pid in family:
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _status(pid: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    wanted = ("PPid", "VmHWM")
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if name in wanted}
