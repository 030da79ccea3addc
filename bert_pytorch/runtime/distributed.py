"""The processes of a run and how they agree with each other.

`World` is what the rest sees: a rank among `size` ranks, sums and broadcasts of a few host numbers, and the wrapping
of a model for data parallelism.  With one process nothing here communicates.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bert_pytorch.errors import EXIT_FAILED, BertPytorchError, ToldElsewhereError, explain_os_error
from bert_pytorch.runtime import hpu
from bert_pytorch.runtime.interfaces import choose_network, interfaces_here, peers_to_reach, source_address
from bert_pytorch.runtime.ranks import Meeting, Ranks, discover_ranks, find_meeting, ranks_on_this_machine
from bert_pytorch.runtime.rendezvous import RendezvousConfig, meet, missing_at

T = TypeVar("T")
Sortable = TypeVar("Sortable", str, tuple[str, str])

COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)


class World:
    """One rank's view of all processes of a run."""

    def __init__(self, ranks: Ranks = Ranks(), how: RendezvousConfig = RendezvousConfig()) -> None:  # noqa: B008
        self.rank = ranks.rank
        self.size = ranks.size
        self.local_rank = ranks.local_rank
        self.ranks = ranks
        self.network = "this process alone"
        """How the ranks talk, for the log; known once they are connected."""
        self._how = how
        self._control: dist.ProcessGroup | None = None
        self._store: dist.Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files and talks to the person."""
        return self.rank == 0

    @property
    def host_group(self) -> dist.ProcessGroup | None:
        """All ranks, over gloo: for what lies on the host."""
        return self._control

    def connect(self, device: torch.device, timeout: datetime.timedelta = COLLECTIVE_TIMEOUT) -> None:
        """Join the other ranks: NCCL for CUDA tensors, HCCL for Gaudi's, gloo for host numbers and for CPU tensors.

        Args:
            device: of the tensors.
            timeout: after which a collective that a rank does not come to fails.

        Raises:
            BertPytorchError: if not all come within `--rendezvous_timeout_minutes`.
        """
        if self.size == 1:
            return
        meeting = find_meeting(os.environ, self.ranks, self._how.init_method)
        self._store = meet(meeting, self.ranks, os.environ, self._how.rendezvous_timeout_minutes * 60)
        if device.type == "hpu":
            hpu.join(self.ranks)
        backend = {"cuda": "nccl", "hpu": "hccl"}.get(device.type, "gloo")
        self._choose_network(meeting, nccl=backend == "nccl")
        dist.init_process_group(backend, store=self._store, rank=self.rank, world_size=self.size, timeout=timeout)
        # Host numbers go over gloo, so that agreeing on them never waits for the device.
        self._control = dist.new_group(backend="gloo", timeout=timeout)

    def _choose_network(self, meeting: Meeting, *, nccl: bool) -> None:
        """Tell gloo and NCCL their interface through the variables that both read when they begin."""
        if ranks_on_this_machine(os.environ, self.ranks) == self.size:
            self.network = "within this machine"
            return
        peers = peers_to_reach(meeting.host, meeting.hosts)
        chosen = choose_network(os.environ, interfaces_here(), peers, source_address, nccl=nccl)
        os.environ.update(chosen.variables)
        self.network = chosen.reason

    def missing_at(self, stage: str, seconds: float) -> list[int]:
        """Come to a stage and wait there for the other ranks, whatever they are doing, without a collective.

        Args:
            stage: its name, each time another.
            seconds: how long to wait.

        Returns:
            Ranks that did not come; empty if all did.
        """
        return [] if self._store is None else missing_at(self._store, stage, self.ranks, seconds)

    def disconnect(self) -> None:
        """Leave the group of ranks."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add host numbers over all ranks, in float64 (exact for counts below 2^53)."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self._control)
        return list(tensor.tolist())

    def start_adding(self, tensor: torch.Tensor) -> Callable[[], None]:
        """Begin to add a tensor's values over all ranks in place, on the device; every rank gets the same bits.

        Returns:
            What waits for it: on a CPU the caller, on a GPU only what is queued afterwards.
        """
        work = dist.all_reduce(tensor, async_op=True) if self.size > 1 else None
        return lambda: None if work is None else work.wait()

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; every rank gets the same answer."""
        return self.sum([float(flag)])[0] > 0

    def union(self, values: Iterable[Sortable]) -> list[Sortable]:
        """Return what any rank holds, sorted; every rank gets the same list."""
        if self.size == 1:
            return sorted(set(values))
        gathered: list[list[Sortable]] = [[] for _ in range(self.size)]
        dist.all_gather_object(gathered, list(values), group=self._control)
        return sorted({value for one in gathered for value in one})

    def gather(self, value: T) -> list[T]:
        """Return every rank's `value`, in the order of ranks, on rank 0; on others an empty list."""
        if self.size == 1:
            return [value]
        gathered: list[T] | None = [value] * self.size if self.is_first else None
        dist.gather_object(value, gathered, group=self._control)
        return gathered or []

    def from_first(self, value: T) -> T:
        """Return rank 0's `value` on every rank (plain Python data; the ranks of a run trust each other)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def on_first(self, function: Callable[[], T]) -> T:
        """Run `function` on rank 0 and return its value on every rank.

        Raises:
            BertPytorchError: on rank 0, if it fails there in a way that a person can mend.
            ToldElsewhereError: on all others then.
        """
        value: T | None = None
        failure: tuple[int, str] | None = None
        if self.is_first:
            try:
                value = function()
            except (BertPytorchError, OSError) as error:
                if self.size == 1:
                    raise
                failure = _plain(error)
        value, failure = self.from_first((value, failure))
        if failure is not None:
            if self.is_first:
                raise _again(failure)
            raise ToldElsewhereError(failure[1], failure[0])
        return cast(T, value)

    def together(self, function: Callable[[], T]) -> T:
        """Run `function` on every rank; if it fails on any, all fail, and the first of them tells why.

        Raises:
            BertPytorchError: on the first rank that failed.
            ToldElsewhereError: on all others.
        """
        value: T | None = None
        failure: tuple[int, str] | None = None
        try:
            value = function()
        except (BertPytorchError, OSError) as error:
            if self.size == 1:
                raise
            failure = _plain(error)
        failed = self.sum([float(failure is not None and rank == self.rank) for rank in range(self.size)])
        if any(failed):
            if failure is not None and failed.index(1.0) == self.rank:
                raise _again(failure)
            raise ToldElsewhereError("another rank failed")
        return cast(T, value)

    def parallelize(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a model so that `backward` averages gradients over the ranks; with one rank return it as it is."""
        if self.size == 1:
            return model
        device_ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=device_ids, gradient_as_bucket_view=True, broadcast_buffers=False
        )


@contextlib.contextmanager
def lost_ranks_explained(world: World) -> Iterator[None]:
    """Turn a collective's failure into one message: another rank ended, and says itself why."""
    try:
        yield
    except (RuntimeError, dist.DistBackendError) as error:
        signs = ("gloo", "nccl", "hccl", "connection", "socket", "timed out")
        if world.size == 1 or not any(sign in str(error).lower() for sign in signs):
            raise
        raise BertPytorchError(
            f"rank {world.rank} lost contact with another rank, which ended or hangs; its own message says why. "
            "The checkpoints before are kept: start again to continue."
        ) from error


def _plain(error: BertPytorchError | OSError) -> tuple[int, str]:
    if isinstance(error, OSError):
        return EXIT_FAILED, explain_os_error(error)
    return error.exit_code, str(error)


def _again(failure: tuple[int, str]) -> BertPytorchError:
    error = BertPytorchError(failure[1])
    error.exit_code = failure[0]
    return error


@contextlib.contextmanager
def sync_gradients(model: nn.Module, *, only_if: bool) -> Iterator[None]:
    """Average gradients over ranks in the backward passes inside only if told to; must cover the forward pass too."""
    if only_if or not isinstance(model, DistributedDataParallel):
        yield
    else:
        with model.no_sync():
            yield


def discover_world(how: RendezvousConfig) -> World:
    """Read this process's rank from what started it; without a starter the run is one process.

    Raises:
        ConfigError: if only some of a starter's variables are set, or one is not a number.
    """
    return World(discover_ranks(os.environ, how.init_method), how)
