"""The processors of this machine as Linux describes them, and a fair share of them for each rank.  No torch here."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

SYSTEM = Path("/sys")
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


class Processor(NamedTuple):
    """A logical processor."""

    number: int
    core: int
    """The least number among its core's hyperthreads: those of one core have the same."""
    node: int
    """NUMA node: the part of the memory that it is near to."""


def read_processors(allowed: Iterable[int], system: Path = SYSTEM) -> tuple[Processor, ...]:
    """Read what the kernel says about processors; what it does not say is a core of its own on node 0.

    Args:
        allowed: numbers of those that this process may use, as `os.sched_getaffinity` returns them: cpusets of
            cgroups and the scheduler's bindings are in it.
        system: where sysfs is mounted.

    Returns:
        The allowed ones by rising number.
    """
    nodes: dict[int, int] = {}
    for path in sorted((system / "devices/system/node").glob("node[0-9]*")):
        nodes |= dict.fromkeys(_numbers(path / "cpulist"), int(path.name.removeprefix("node")))
    found = []
    for number in sorted(allowed):
        topology = system / f"devices/system/cpu/cpu{number}/topology"
        siblings = _numbers(topology / "core_cpus_list") or _numbers(topology / "thread_siblings_list")
        found.append(Processor(number, min(siblings, default=number), nodes.get(number, 0)))
    return tuple(found)


def gpu_node(address: str, system: Path = SYSTEM) -> int | None:
    """Return the NUMA node of a PCI device, None where the kernel does not know it.

    Args:
        address: such as 0000:3b:00.0.
        system: where sysfs is mounted.
    """
    try:
        node = int((system / "bus/pci/devices" / address.lower() / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None  # the kernel says -1 where firmware told it nothing


def share_of_rank(
    processors: Sequence[Processor], local_rank: int, local_size: int, gpu_nodes: Sequence[int | None] = ()
) -> frozenset[int]:
    """Return the processors of one of the ranks of a machine; never none.

    Ranks get whole cores while there are enough, else hyperthreads; where there are fewer than ranks, all share all.

    Args:
        processors: those that may be used.
        local_rank: which rank, of `local_size`.
        local_size: ranks on this machine.
        gpu_nodes: NUMA node of each local rank's GPU.  A rank then gets a part of that node's processors; unless all
            are known and have processors that may be used, places of GPUs are not looked at.

    Returns:
        Numbers of processors.
    """
    known = {processor.node for processor in processors}
    if len(gpu_nodes) == local_size and all(node in known for node in gpu_nodes):
        beside = [rank for rank in range(local_size) if gpu_nodes[rank] == gpu_nodes[local_rank]]
        near = [processor for processor in processors if processor.node == gpu_nodes[local_rank]]
        return _part(near, beside.index(local_rank), len(beside))
    return _part(processors, local_rank, local_size)


def count_cores(processors: Iterable[Processor], numbers: Collection[int]) -> int:
    """Count the cores that some processors belong to."""
    return len({processor.core for processor in processors if processor.number in numbers})


def threads_asked(
    environment: Mapping[str, str], starters_environment: Mapping[str, str] | None, *, torchrun: bool
) -> int | None:
    """Return the OMP_NUM_THREADS that a person or a scheduler chose, None if nobody did.

    torchrun sets it to 1 for several processes on a machine where it finds none (torch.distributed.run,
    `config_from_args`), so that a CPU trains on a fraction of its cores; what torchrun itself was started with tells.

    Args:
        environment: of this process.
        starters_environment: what its parent was started with; None if that cannot be read.
        torchrun: whether torchrun started it.
    """
    value = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not value.isdecimal() or int(value) == 0:
        return None
    if torchrun and value == "1" and starters_environment is not None:
        return None if "OMP_NUM_THREADS" not in starters_environment else 1
    return int(value)


def parse_cpu_list(text: str) -> frozenset[int]:
    """Return the numbers in a list as the kernel writes it, `0-3,8`; what is none adds nothing."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if numbers := _RANGE.fullmatch(part):
            found |= set(range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1))
    return frozenset(found)


def format_cpu_list(numbers: Iterable[int]) -> str:
    """Return numbers as the kernel writes them: {0, 1, 2, 3, 8} is 0-3,8."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _part(processors: Sequence[Processor], index: int, count: int) -> frozenset[int]:
    """Return part `index` of `count`; neighbours in a part are near each other."""
    cores: dict[int, list[int]] = {}
    for processor in sorted(processors, key=lambda each: (each.node, each.core, each.number)):
        cores.setdefault(processor.core, []).append(processor.number)
    units = list(cores.values())
    if len(units) < count:
        units = [[number] for core in units for number in core]
    if len(units) < count:
        return frozenset(number for unit in units for number in unit)
    begin, end = index * len(units) // count, (index + 1) * len(units) // count
    return frozenset(number for unit in units[begin:end] for number in unit)


def _numbers(path: Path) -> frozenset[int]:
    try:
        return parse_cpu_list(path.read_text())
    except OSError:
        return frozenset()
