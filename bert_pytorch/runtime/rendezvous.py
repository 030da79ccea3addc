"""How the processes of a run meet: within a stated time, or with a message that says who is missing."""

import datetime
import socket
import time
import uuid
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

    A store may be older than this meeting: torchrun's agents start processes anew and keep it, and do not count their
    starts alike.  So each rank says that it is here under a name of its own making, rank 0 answers with that of the
    meeting, and only who has taken up the answer has joined.

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
    board = dist.PrefixStore("bert_pytorch", store)
    if meeting.file is not None and board.add(f"taken {ranks.rank}", 1) > 1:
        raise BertPytorchError(
            f"{meeting.file}: rank {ranks.rank} joined there already: an earlier run left the file, or two processes "
            "have one rank. Remove the file, or name a new one with --init_method for each start."
        )
    attendance = _Attendance(board, ranks, machine_name(environment))
    attend = attendance.call if ranks.rank == 0 else attendance.answer
    while not attend():
        if time.monotonic() > deadline:
            raise BertPytorchError(who_is_missing(attendance.joined(), ranks.size, meeting, timeout_seconds))
        time.sleep(POLL_SECONDS)
    return dist.PrefixStore(f"run {attendance.meeting}", board)


class _Attendance:
    """Who is at a meeting, as one rank knows it.

    Args:
        board: a store that all ranks see.
        ranks: this process's place.
        machine: its name.
    """

    def __init__(self, board: dist.Store, ranks: Ranks, machine: str) -> None:
        self._board = board
        self._ranks = ranks
        self._machine = machine
        self._own = uuid.uuid4().hex
        self._absent = set(range(1, ranks.size))
        self._answered: dict[int, bytes] = {}
        self.meeting = self._own if ranks.rank == 0 else ""
        """Its name, empty while it is not known."""
        board.set(f"here {ranks.rank}", f"{self._own} {machine}")
        if ranks.rank == 0:
            self._join()

    def call(self) -> bool:
        """Answer on rank 0 whoever said that it is here; return whether all have joined."""
        for rank in list(self._absent):
            if self._board.check([self._joined_key(rank)]):
                self._absent.remove(rank)
            elif self._board.check([f"here {rank}"]):
                name = self._board.get(f"here {rank}").partition(b" ")[0]
                if self._answered.get(rank) != name:
                    self._answered[rank] = name
                    self._board.set(f"answer {rank}", f"{name.decode()} {self.meeting}")
        if not self._absent:
            self._board.set(f"complete {self.meeting}", "")
        return not self._absent

    def answer(self) -> bool:
        """Take up rank 0's answer on another rank; return whether all have."""
        key = f"answer {self._ranks.rank}"
        if self._board.check([key]):
            name, meeting = self._board.get(key).decode().split()
            if name == self._own and meeting != self.meeting:
                self.meeting = meeting
                self._join()
        return bool(self.meeting) and self._board.check([f"complete {self.meeting}"])

    def joined(self) -> dict[int, str]:
        """Return the machines of ranks that have come; without an answer of rank 0, of those that say so."""
        key = self._joined_key if self.meeting else "here {}".format
        others = set(range(0 if self.meeting else 1, self._ranks.size)) - {self._ranks.rank}
        found = {rank: self._board.get(key(rank)).decode() for rank in others if self._board.check([key(rank)])}
        return {self._ranks.rank: self._machine} | {rank: text.split()[-1] for rank, text in found.items()}

    def _join(self) -> None:
        self._board.set(self._joined_key(self._ranks.rank), self._machine)

    def _joined_key(self, rank: int) -> str:
        return f"joined {self.meeting} {rank}"


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
