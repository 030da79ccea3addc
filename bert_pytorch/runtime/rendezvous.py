"""How the processes of a run meet: within a stated time, or with a message that says who is missing."""

import datetime
import socket
import time
from collections.abc import Mapping, Sequence

import torch.distributed as dist
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import BertPytorchError
from bert_pytorch.runtime.nodes import same_machine
from bert_pytorch.runtime.ranks import Meeting, Ranks

POLL_SECONDS = 0.05


class RendezvousConfig(Settings):
    """How the ranks of a run find each other."""

    init_method: str | None = None
    """Where ranks meet that nothing else tells: tcp://HOST:PORT of rank 0, or file:///path of a new file on a file
    system that all share.  torchrun, srun, mpirun and Kubernetes need none; without them add
    ?rank=R&world_size=N, different in R for each process."""
    rendezvous_timeout_minutes: float = Field(10.0, gt=0)
    """How long ranks wait for each other at the start; then the run ends and says which are missing."""


def meet(meeting: Meeting, ranks: Ranks, environment: Mapping[str, str], timeout_seconds: float) -> dist.Store:
    """Wait until all ranks have joined and return their store.

    Args:
        meeting: where.
        ranks: this process's place.
        environment: variables of the process, for its machine's name.
        timeout_seconds: from now until all must be here.

    Raises:
        BertPytorchError: if the time is over: how many joined, which ranks and machines did not.
    """
    deadline = time.monotonic() + timeout_seconds
    store = _open_store(meeting, ranks, timeout_seconds)
    roll = dist.PrefixStore(f"bert_pytorch/{meeting.attempt}", store)
    if meeting.file is not None and roll.add(f"taken {ranks.rank}", 1) > 1:
        raise BertPytorchError(
            f"{meeting.file}: rank {ranks.rank} joined there already: an earlier run left the file, or two processes "
            "have one rank. Remove the file, or name a new one with --init_method for each start."
        )
    roll.set(f"rank {ranks.rank}", machine_name(environment))
    keys = [f"rank {rank}" for rank in range(ranks.size)]
    while not roll.check(keys):
        if time.monotonic() > deadline:
            joined = {rank: roll.get(key).decode() for rank, key in enumerate(keys) if roll.check([key])}
            raise BertPytorchError(who_is_missing(joined, ranks.size, meeting, timeout_seconds))
        time.sleep(POLL_SECONDS)
    return dist.PrefixStore("run", roll)


def missing_at(store: dist.Store, stage: str, ranks: Ranks, seconds: float) -> list[int]:
    """Note that this rank has come to a stage and wait for the others; return those that did not come in time.

    Args:
        store: of `meet`.
        stage: its name, each time another.
        ranks: this process's place.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    keys = [f"{stage} {rank}" for rank in range(ranks.size)]
    store.set(keys[ranks.rank], "here")
    while not store.check(keys):
        if time.monotonic() > deadline:
            return [rank for rank, key in enumerate(keys) if not store.check([key])]
        time.sleep(POLL_SECONDS)
    return []


def who_is_missing(joined: Mapping[int, str], size: int, meeting: Meeting, seconds: float) -> str:
    """Return the message for a meeting that did not come about.

    Args:
        joined: machine of each rank that came.
        size: how many were to come.
        meeting: where.
        seconds: how long was waited.
    """
    missing = [rank for rank in range(size) if rank not in joined]
    text = f"{len(joined)} of {size} ranks joined at {_place(meeting)} within {seconds:g} s; missing: "
    text += f"rank{'s' if len(missing) > 1 else ''} {_listed([str(rank) for rank in missing])}."
    absent = [host for host in meeting.hosts if not any(same_machine(host, name) for name in joined.values())]
    if absent:
        text += f" None came from {_listed(absent)}."
    return text + (
        " Look in their logs for why; then start again (--rendezvous_timeout_minutes waits longer, "
        "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network to use)."
    )


def machine_name(environment: Mapping[str, str]) -> str:
    """Return this machine's name as its node list spells it, else the kernel's."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()


def _open_store(meeting: Meeting, ranks: Ranks, seconds: float) -> dist.Store:
    timeout = datetime.timedelta(seconds=seconds)
    if meeting.file is not None:
        return dist.FileStore(str(meeting.file), ranks.size)
    hosts = ranks.rank == 0 and not meeting.hosted_by_agent
    try:
        return dist.TCPStore(meeting.host, meeting.port, None, hosts, timeout, wait_for_workers=False)
    except (RuntimeError, ValueError) as error:  # a name that does not resolve, a port that is taken, nobody there
        if hosts:
            message = f"rank 0 cannot listen at {_place(meeting)} ({_reason(error)}). Set another MASTER_PORT, or wait."
        else:
            message = (
                f"rank {ranks.rank} of {ranks.size} did not reach rank 0 at {_place(meeting)} within {seconds:g} s "
                f"({_reason(error)}). Look whether rank 0 started, and whether this machine may connect to it."
            )
        raise BertPytorchError(message) from error


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def _place(meeting: Meeting) -> str:
    return str(meeting.file) if meeting.file is not None else f"{meeting.host}:{meeting.port}"


def _listed(names: Sequence[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
