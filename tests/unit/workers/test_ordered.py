"""Streams of tasks: results in order, whoever is slow, and no more taken ahead than is said."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from bert_pytorch.errors import InputError, WorkerError
from bert_pytorch.workers.ordered import map_in_order


def slow_if_even(number: int) -> tuple[int, int]:
    time.sleep(0.05 * (number % 2 == 0))
    return number * number, os.getpid()


def refuses_three(number: int) -> int:
    if number == 3:
        raise InputError("line 3 is wrong")
    return number


def kills_itself(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


class Counts:
    """Ten tasks, of which it is known how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(10):
            self.taken += 1
            yield number


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_tasks_and_few_are_taken_ahead(processes: int) -> None:
    tasks, ahead, seen, workers = Counts(), [], [], set()
    for result, worker in map_in_order(slow_if_even, tasks, processes):
        seen.append(result)
        workers.add(worker)
        ahead.append(tasks.taken - len(seen))
    assert seen == [number * number for number in range(10)]
    assert max(ahead) < 2 * processes
    assert (os.getpid() in workers) == (processes == 1)
    assert len(workers) <= processes


@pytest.mark.parametrize("processes", [1, 2])
def test_the_error_of_a_task_is_raised_as_it_was(processes: int) -> None:
    with pytest.raises(InputError, match="line 3 is wrong"):
        list(map_in_order(refuses_three, range(9), processes))


def test_a_killed_process_is_told() -> None:
    with pytest.raises(WorkerError, match="part 1 of the work: its worker process was killed by SIGKILL"):
        list(map_in_order(kills_itself, [0], 2))


def test_no_tasks_have_no_results() -> None:
    assert list(map_in_order(refuses_three, [], 2)) == []
