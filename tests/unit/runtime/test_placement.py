"""Tables of what a rank decides on its machine, and that a process is bound with all its threads."""

import os
import subprocess
import sys

import pytest

from bert_pytorch.runtime.placement import Placement, Surroundings, plan_placement
from bert_pytorch.runtime.processors import Processor
from tests.support.data import REPOSITORY

MACHINE = tuple(Processor(number, number % 8, number % 8 // 4) for number in range(16))
"""Two sockets of 4 cores with 2 hyperthreads each: 0 and 8 are a core."""
ALL = frozenset(range(16))


def found(**more: object) -> Surroundings:
    usual = Surroundings(MACHINE, outside=8, bound=False, starter="torchrun", local_rank=1, local_size=2)
    return usual._replace(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("affinity", "surroundings", "processors", "bind", "threads"),
    [
        ("auto", found(), {4, 5, 6, 7, 12, 13, 14, 15}, True, 4),
        ("auto", found(asked=3), {4, 5, 6, 7, 12, 13, 14, 15}, True, None),
        ("auto", found(gpu_nodes=(0, 0)), {2, 3, 10, 11}, True, 2),
        ("none", found(), ALL, False, None),
        ("auto", found(local_size=None), ALL, False, None),
        ("auto", found(local_rank=0, local_size=1), ALL, False, None),
        # the container's limit is for all ranks in it, and never leaves a rank without a thread
        ("auto", found(limit=6.0), {4, 5, 6, 7, 12, 13, 14, 15}, True, 3),
        ("auto", found(limit=0.5), {4, 5, 6, 7, 12, 13, 14, 15}, True, 1),
        ("auto", found(limit=64.0), {4, 5, 6, 7, 12, 13, 14, 15}, True, 4),
        ("auto", found(local_rank=0, local_size=1, limit=2.5), ALL, False, 2),
        # bound one by one, to a core each: as it is
        ("auto", found(processors=MACHINE[3:4], bound=True, starter="Open MPI"), {3}, False, 1),
        # bound to a socket that four ranks share: no more threads than cores
        (
            "auto",
            found(
                processors=tuple(each for each in MACHINE if each.node == 0), bound=True, starter="SLURM", local_size=8
            ),
            {0, 1, 2, 3, 8, 9, 10, 11},
            False,
            1,
        ),
        ("override", found(bound=True), {4, 5, 6, 7, 12, 13, 14, 15}, True, 4),
        ("override", found(local_rank=0, local_size=1), ALL, True, None),
    ],
)
def test_what_a_rank_decides(
    affinity: str, surroundings: Surroundings, processors: set[int], bind: bool, threads: int | None
) -> None:
    decided = plan_placement(affinity, surroundings)  # type: ignore[arg-type]
    assert decided == Placement(frozenset(processors), bind, threads, decided.reason)


@pytest.mark.parametrize(
    ("affinity", "surroundings", "said"),
    [
        ("auto", found(), "local rank 1 of 2"),
        ("auto", found(gpu_nodes=(0, 1)), "near its GPU"),
        ("auto", found(bound=True, starter="Open MPI"), "bound by Open MPI; --cpu_affinity override"),
        ("none", found(), "--cpu_affinity none"),
        ("auto", found(asked=3), "OMP_NUM_THREADS=3"),
        ("auto", found(limit=2.0), "container's limit is 2 processors"),
    ],
)
def test_the_reason_is_told(affinity: str, surroundings: Surroundings, said: str) -> None:
    assert said in plan_placement(affinity, surroundings).reason  # type: ignore[arg-type]


BINDS = """
import os, sys, threading
before = threading.Event()
early = threading.Thread(target=before.wait); early.start()  # as NumPy's threads, there before the rank is bound
import torch
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.placement import PlacementConfig, take_processors
from bert_pytorch.runtime.ranks import Ranks
os.environ["LOCAL_WORLD_SIZE"] = sys.argv[1]
last = int(sys.argv[1]) - 1
line = take_processors(PlacementConfig(device="cpu"), World(Ranks(last, last + 1, last, "torchrun")))
late = []
thread = threading.Thread(target=lambda: late.append(os.sched_getaffinity(0))); thread.start(); thread.join()
torch.ones(300, 300) @ torch.ones(300, 300)
masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
before.set()
print(sorted({tuple(sorted(mask)) for mask in [*masks, *late]}), torch.get_num_threads(), "|", line)
"""


def test_every_thread_that_a_rank_has_and_will_have_is_bound() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        pytest.skip("needs two processors")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", BINDS, str(len(allowed))],
        env={**environment, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told, _, line = done.stdout.partition(" | ")
    assert told == f"[({allowed[-1]},)] 1"
    assert f"1 ({allowed[-1]}), 1 threads; local rank" in line
