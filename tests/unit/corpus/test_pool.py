"""The pool: results in order, and a killed worker is an answer, not a hang."""

import os
import signal

import pytest

from bert_pytorch.corpus.pool import PoolConfig, run_tasks
from bert_pytorch.errors import InputError, WorkerError
from bert_pytorch.progress import Progress


def square(number: int) -> int:
    return number * number


def kill_itself(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    raise InputError(f"piece {number}: bad input")


def fill_the_disk(number: int) -> int:
    raise OSError(28, "No space left on device", f"/out/{number}")


def crash(number: int) -> int:
    return 1 // (number - number)


def run(work: object, processes: int = 2) -> list[int]:
    pool = PoolConfig(processes=processes)
    return run_tasks(work, list(range(6)), pool, "piece {}".format, Progress("test", 6), lambda task: 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_tasks(processes: int) -> None:
    assert run(square, processes) == [0, 1, 4, 9, 16, 25]


def test_a_killed_worker_is_reported() -> None:
    with pytest.raises(WorkerError, match=r"a worker process was killed while piece . or another piece was in work"):
        run(kill_itself)


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_of_people_pass_and_defects_are_named(processes: int) -> None:
    with pytest.raises(InputError, match=r"piece .: bad input"):
        run(refuse, processes)
    with pytest.raises(OSError, match="No space left") as raised:
        run(fill_the_disk, processes)
    assert raised.value.filename.startswith("/out/")
    with pytest.raises(WorkerError, match=r"piece .: ZeroDivisionError"):
        run(crash, processes)
