"""The pool: results in order; what fails is tried again, then named, while the rest completes; nothing outlives it."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bert_pytorch.corpus.builds import Build
from bert_pytorch.corpus.executors import pool as pool_module
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.errors import ConfigError, InputError, MissingDependencyError, WorkerError
from bert_pytorch.files import atomic_path, exclusive_lock
from bert_pytorch.progress import Progress
from bert_pytorch.workers import local_pool
from tests.support.dask_cluster import wait_until
from tests.support.data import REPOSITORY


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_FIRST_PAUSE_SECONDS", 0.01)


class Piece(NamedTuple):
    """A task: what number 3 does differs from test to test."""

    number: int
    folder: Path

    def describe(self) -> str:
        return f"piece {self.number}"

    @property
    def attempts(self) -> int:
        return len((self.folder / f"attempts_{self.number}").read_text())

    def begin(self) -> int:
        """Count this attempt in a file, which outlives any process."""
        with (self.folder / f"attempts_{self.number}").open("a") as file:
            file.write(".")
        return self.attempts


def square(piece: Piece) -> int:
    piece.begin()
    return piece.number**2


def fail_twice(piece: Piece) -> int:
    if piece.begin() <= 2 and piece.number in (1, 3):
        raise OSError(errno.EIO, "Input/output error", "/far/file") if piece.number == 1 else ValueError("odd")
    return piece.number**2


def refuse_odd(piece: Piece) -> int:
    piece.begin()
    if piece.number % 2:
        raise InputError(f"file {piece.number}: bad input")
    return piece.number


def refuse_three(piece: Piece) -> int:
    piece.begin()
    if piece.number == 3:
        raise InputError("file 3: bad input")
    return piece.number


def divide_by_zero(piece: Piece) -> int:
    piece.begin()
    return 1 // (piece.number - 3)


def die(piece: Piece) -> int:
    piece.begin()
    if piece.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.number


def die_in_company(piece: Piece) -> int:
    if piece.begin() == 1 and piece.number in (2, 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.number**2


def fill_the_disk(piece: Piece) -> int:
    piece.begin()
    if piece.number == 1:
        error = OSError(errno.ENOSPC, "No space left on device", f"/out/{piece.number}")
        error.filename2 = None  # as `atomic_path` does
        raise error
    time.sleep(0.1)
    return 0


def lack_a_library(piece: Piece) -> int:
    raise MissingDependencyError("pip install it")


class TooWideError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def raise_what_cannot_travel(piece: Piece) -> int:
    raise TooWideError(1, 2)


def return_what_cannot_travel(piece: Piece) -> Any:
    return lambda: piece


def run(
    work: Callable[[Piece], Any], folder: Path, processes: int = 2, count: int = 8, retries: int = 2
) -> tuple[list[Any], list[Piece]]:
    pieces = [Piece(number, folder) for number in range(count)]
    pool = PoolConfig(processes=processes, retries=retries)
    return run_tasks(work, pieces, pool, Piece.describe, Progress("test", count), lambda piece: 1), pieces


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_tasks_and_passing_errors_pass(processes: int, tmp_path: Path) -> None:
    squares = [number**2 for number in range(8)]
    assert run(square, tmp_path, processes)[0] == squares
    for file in tmp_path.iterdir():
        file.unlink()
    results, pieces = run(fail_twice, tmp_path, processes)
    assert results == squares
    assert [piece.attempts for piece in pieces] == [1, 3, 1, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_fails_is_named_while_the_rest_completes(processes: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^4 of 8 pieces of work failed; the others are done and kept") as raised:
        run(refuse_odd, tmp_path, processes)
    assert [f"  - piece {number}: file {number}: bad input" in str(raised.value) for number in range(8)] == [0, 1] * 4
    assert [len(file.read_text()) for file in sorted(tmp_path.iterdir())] == [1] * 8, "bad input stays bad"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_lone_failure_keeps_its_kind_and_text(processes: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^file 3: bad input$"):
        run(refuse_three, tmp_path, processes)
    with pytest.raises(WorkerError, match=r"^piece 3: ZeroDivisionError: .* by zero\. What is finished is kept"):
        run(divide_by_zero, tmp_path, processes)
    assert len((tmp_path / "attempts_3").read_text()) == 1 + 3
    with pytest.raises(WorkerError, match="piece 0: TooWideError: 1 and 2"):
        run(raise_what_cannot_travel, tmp_path, processes, count=2, retries=0)


def test_a_result_that_cannot_be_sent_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"2 of 2 pieces.*\n  - piece 0: .*pickle"):
        run(return_what_cannot_travel, tmp_path, count=2, retries=0)


def test_a_killed_worker_is_found_and_named_and_the_others_complete(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^piece 3: its worker process was killed by SIGKILL.*fewer --processes"):
        run(die, tmp_path, processes=3)
    attempts = {file.name: len(file.read_text()) for file in tmp_path.iterdir()}
    assert attempts == {f"attempts_{number}": 3 if number == 3 else 1 for number in range(8)}


def test_what_lacked_memory_in_company_is_done_alone(tmp_path: Path) -> None:
    results, pieces = run(die_in_company, tmp_path, processes=3)
    assert results == [number**2 for number in range(8)]
    assert [piece.attempts for piece in pieces] == [1, 1, 2, 2, 1, 1, 1, 1]


def end_by_itself(piece: Piece) -> int:
    piece.begin()
    if piece.number == 3:
        os._exit(7)
    return piece.number


def test_a_worker_that_ends_by_itself_is_not_blamed_on_memory(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"^piece 3: its worker process ended with exit code 7; see") as raised:
        run(end_by_itself, tmp_path)
    assert "memory" not in str(raised.value)


def test_a_worker_killed_while_it_starts_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Killed(local_pool._Worker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            started.append(self)
            if len(started) == 1:
                self.process.kill()

    monkeypatch.setattr(local_pool, "_Worker", Killed)
    results, pieces = run(square, tmp_path, count=4)
    assert results == [0, 1, 4, 9]
    assert [piece.attempts for piece in pieces] == [1] * 4


BROKEN_START = """
import sys
if __name__ == "__mp_main__":
    sys.exit(5)
from tests.unit.corpus.test_pool import run, square
from pathlib import Path
if __name__ == "__main__":
    run(square, Path(sys.argv[1]), count=50)
"""


def test_workers_that_cannot_start_end_the_work_soon(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN_START)
    command = [sys.executable, str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert "worker processes end as soon as they start (exit code 5)" in ended.stderr


def refuse_a_part(piece: Piece) -> int:
    raise InputError(f"archive.zip holds piece {piece.number}, which is bad")


def test_a_name_inside_the_message_is_still_said_first(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\n  - piece 0: archive\.zip holds piece 0, which is bad\n"):
        run(refuse_a_part, tmp_path, processes=1, count=2)


def die_while_writing(piece: Piece) -> int:
    with atomic_path(piece.folder / f"file_{piece.number}") as temporary:
        temporary.write_text("whole")
        if piece.begin() == 1 and piece.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return piece.number


def test_what_a_killed_worker_was_writing_does_not_stay_in_a_finished_build(tmp_path: Path) -> None:
    build = Build(tmp_path, "record.json", "print", {}, ())
    with exclusive_lock(tmp_path, "builds"), build.in_work():
        assert run(die_while_writing, tmp_path, count=3)[0] == [0, 1, 2]
        assert len(list(tmp_path.glob(".partial*"))) == 1
        build.finish({})
    assert sorted(path.name for path in tmp_path.glob("[.fr]*")) == [
        ".lock",
        "file_0",
        "file_1",
        "file_2",
        "record.json",
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_or_a_missing_library_ends_all_at_once(processes: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        run(fill_the_disk, tmp_path, processes, count=100)
    assert raised.value.filename == "/out/1"
    assert len(list(tmp_path.iterdir())) < 10
    with pytest.raises(MissingDependencyError, match="pip install it"):
        run(lack_a_library, tmp_path, processes)


def test_few_tasks_are_handed_over_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    out, most = 0, 0

    class Watched(pool_module.LocalPool):
        def submit(self, number: int, task: Any) -> None:
            nonlocal out, most
            out, most = out + 1, max(most, out + 1)
            super().submit(number, task)

        def wait(self, seconds: float) -> Any:
            nonlocal out
            outcomes = super().wait(seconds)
            out -= len(outcomes)
            return outcomes

    monkeypatch.setattr(pool_module, "LocalPool", Watched)
    tasks = [bytes(200_000 + number) for number in range(40)]  # each larger than a pipe
    results = run_tasks(len, tasks, PoolConfig(processes=2), str, Progress("test", 1), lambda task: 0)
    assert results == [200_000 + number for number in range(40)]
    assert most == 2


SLEEPERS = """
import sys, time
from pathlib import Path
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.progress import Progress
import bert_pytorch.corpus.__main__ as tool

def sleep(_words):
    from tests.unit.corpus.test_pool import Piece, sleep_long
    pieces = [Piece(number, Path(sys.argv[1])) for number in range(4)]
    run_tasks(sleep_long, pieces, PoolConfig(processes=3), str, Progress("sleep", 4), lambda piece: 1)

if __name__ == "__main__":
    tool._STAGES["sleep"] = sleep
    sys.exit(tool.main(["sleep"]))
"""


def sleep_long(piece: Piece) -> None:
    (piece.folder / f"pid_{os.getpid()}").touch()
    time.sleep(300)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    command = [sys.executable, str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: len(list(tmp_path.glob("pid_*"))) == 3)
        workers = [int(path.name.removeprefix("pid_")) for path in tmp_path.glob("pid_*")]
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == (-number if number == signal.SIGKILL else 75)
        assert "Traceback" not in said
        wait_until(lambda: not any(map(alive, workers)), seconds=10)
    finally:
        process.kill()


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_address_that_is_none_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"--scheduler: found 'cluster:8786', wanted an address such as tcp://host"):
        PoolConfig(scheduler="cluster:8786").checked("x")
    PoolConfig(scheduler="tcp://cluster:8786").checked("x")
