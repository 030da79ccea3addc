"""On which processors of its machine a rank computes, and with how many threads: planned purely, then done."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from bert_pytorch.runtime.cgroups import cpu_limit
from bert_pytorch.runtime.device import DeviceConfig, gpu_count
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.gpus import pci_address
from bert_pytorch.runtime.processors import (
    Processor,
    count_cores,
    format_cpu_list,
    gpu_node,
    parse_cpu_list,
    read_processors,
    share_of_rank,
    threads_asked,
)
from bert_pytorch.runtime.ranks import ranks_on_this_machine

Affinity = Literal["auto", "none", "override"]


class PlacementConfig(DeviceConfig):
    """Where the model runs, and where on the machine."""

    cpu_affinity: Affinity = "auto"
    """Processors of a rank: auto gives each of several ranks on a machine cores of its own, those near its GPU, unless
    srun, mpirun or torchrun bound it already; override binds it also then; none leaves everything as it is.  Threads
    follow from the cores unless OMP_NUM_THREADS is set."""


class Surroundings(NamedTuple):
    """What a rank finds on its machine."""

    processors: tuple[Processor, ...]
    """Those that this rank may use."""
    outside: int
    """Cores that the process which started it may use."""
    bound: bool
    """Whether it may use fewer processors than that process: somebody bound it."""
    starter: str
    local_rank: int
    local_size: int | None
    """None where nothing tells how many ranks there are on this machine."""
    gpu_nodes: tuple[int | None, ...] = ()
    """NUMA node of each local rank's GPU."""
    asked: int | None = None
    """OMP_NUM_THREADS."""
    limit: float | None = None
    """Processors' time that the container allows to all ranks in it together."""


class Placement(NamedTuple):
    """What is decided for a rank."""

    processors: frozenset[int]
    bind: bool
    threads: int | None
    """None: as torch has chosen."""
    reason: str


def plan_placement(affinity: Affinity, found: Surroundings) -> Placement:
    """Decide on the processors and threads of a rank."""
    own = frozenset(processor.number for processor in found.processors)
    size = found.local_size
    if affinity == "none":
        return Placement(own, False, None, "left as found, --cpu_affinity none")
    if size is None:
        bind, reason = False, "nothing tells how many ranks share this machine"
    elif found.bound and affinity == "auto":
        who = "its starter" if found.starter == "nothing" else found.starter
        bind, reason = False, f"bound by {who}; --cpu_affinity override shares all anew"
    elif size == 1:
        bind, reason = affinity == "override", "the only rank on its machine"
    else:
        own = share_of_rank(found.processors, found.local_rank, size, found.gpu_nodes)
        near = ", near its GPU" if found.gpu_nodes and None not in found.gpu_nodes else ""
        bind, reason = True, f"local rank {found.local_rank} of {size}{near}"
    threads, why = _threads(found, own)
    return Placement(own, bind, threads, reason + why)


def take_processors(config: PlacementConfig, world: World) -> str:
    """Bind this rank as planned, with all threads that it has and will have, and return a line for the log.

    Loader threads and processes inherit it.
    """
    if not hasattr(os, "sched_getaffinity"):
        return f"{os.cpu_count()}, {torch.get_num_threads()} threads; only Linux binds"
    if config.cpu_affinity == "override":
        _use(parse_cpu_list(Path("/sys/devices/system/cpu/online").read_text()))  # as far as cpusets allow
    planned = plan_placement(config.cpu_affinity, _look_around(world, gpus=config.device in ("auto", "cuda")))
    if planned.bind:
        _use(planned.processors)
    if planned.threads is not None:
        torch.set_num_threads(planned.threads)
    numbers = format_cpu_list(planned.processors)
    return f"{len(planned.processors)} ({numbers}), {torch.get_num_threads()} threads; {planned.reason}"


def _threads(found: Surroundings, own: frozenset[int]) -> tuple[int | None, str]:
    """Return how many threads a rank has, and why if it is not the number of its cores."""
    size = found.local_size
    if found.asked is not None:
        return None, f", OMP_NUM_THREADS={found.asked}"
    if size is None:
        return None, ""
    # A binding may be one that ranks share, a socket's or a job's: together they get no more than there is.
    cores = min(count_cores(found.processors, own), max(1, found.outside // size))
    allowed = None if found.limit is None else max(1, int(found.limit / size))
    if allowed is not None and allowed < cores:
        return allowed, f", the container's limit is {found.limit:g} processors"
    return (None if size == 1 and not found.bound else cores), ""


def _look_around(world: World, *, gpus: bool) -> Surroundings:
    own = os.sched_getaffinity(0)
    outside, environment = _of_parent()
    size = ranks_on_this_machine(os.environ, world.ranks)
    return Surroundings(
        processors=read_processors(own),
        outside=count_cores(read_processors(outside | own), outside | own),
        bound=own < outside and not os.environ.get("SLURM_CPU_BIND_TYPE", "").startswith("none"),
        starter=world.ranks.starter,
        local_rank=world.local_rank,
        local_size=size,
        gpu_nodes=_gpu_nodes(size) if gpus and size is not None and gpu_count() >= size else (),
        asked=threads_asked(os.environ, environment, torchrun=world.ranks.starter == "torchrun"),
        limit=cpu_limit(),
    )


def _of_parent() -> tuple[set[int], Mapping[str, str] | None]:
    """Return the processors of the process that started this one, and the variables it was itself started with."""
    outside: set[int] = set()
    with contextlib.suppress(OSError):
        outside = os.sched_getaffinity(os.getppid())
    try:
        words = Path(f"/proc/{os.getppid()}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return outside, None
    return outside, dict(word.split("=", 1) for word in words if "=" in word)


def _gpu_nodes(local_size: int) -> tuple[int | None, ...]:
    """Return the NUMA nodes of the GPUs that local ranks take, by their addresses on the PCI bus."""
    addresses = [pci_address(index) for index in range(local_size)]
    return tuple(None if address is None else gpu_node(address) for address in addresses)


def _use(processors: frozenset[int]) -> None:
    """Bind all threads of this process; those to come inherit it from the one that makes them."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that ended, or a cpuset without any of them
            os.sched_setaffinity(int(task.name), processors)
