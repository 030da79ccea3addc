"""The processes of a run and how they agree with each other.

`World` is what the rest sees: a rank among `size` ranks, sums and broadcasts of a few host numbers, and the wrapping
of a model for data parallelism.  With one process nothing here communicates.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bert_pytorch.errors import EXIT_FAILED, BertPytorchError, ConfigError, explain_os_error

T = TypeVar("T")

RENDEZVOUS_TIMEOUT = datetime.timedelta(minutes=10)


class World:
    """One rank's view of all processes of a run."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self._control: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files and talks to the person."""
        return self.rank == 0

    def connect(self, device: torch.device) -> None:
        """Join the other ranks: NCCL for CUDA tensors, gloo for host numbers and for CPU tensors."""
        if self.size == 1:
            return
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=RENDEZVOUS_TIMEOUT)
        # Host numbers go over gloo, so that agreeing on them never waits for the device.
        self._control = dist.new_group(backend="gloo", timeout=RENDEZVOUS_TIMEOUT)

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

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes; every rank gets the same answer."""
        return self.sum([float(flag)])[0] > 0

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
            BertPytorchError: on every rank, if it fails on rank 0 in a way that a person can mend.
        """
        value: T | None = None
        failure: tuple[int, str] | None = None
        if self.is_first:
            try:
                value = function()
            except (BertPytorchError, OSError) as error:
                if self.size == 1:
                    raise
                message = explain_os_error(error) if isinstance(error, OSError) else str(error)
                failure = (getattr(error, "exit_code", EXIT_FAILED), message)
        value, failure = self.from_first((value, failure))
        if failure is not None:
            told = BertPytorchError(failure[1])
            told.exit_code = failure[0]
            raise told
        return cast(T, value)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.sum([0.0])

    def parallelize(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a model so that `backward` averages gradients over the ranks; with one rank return it as it is."""
        if self.size == 1:
            return model
        device_ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=device_ids, gradient_as_bucket_view=True, broadcast_buffers=False
        )


@contextlib.contextmanager
def sync_gradients(model: nn.Module, *, only_if: bool) -> Iterator[None]:
    """Average gradients over ranks in the backward passes inside only if told to; must cover the forward pass too."""
    if only_if or not isinstance(model, DistributedDataParallel):
        yield
    else:
        with model.no_sync():
            yield


def discover_world(environment: Mapping[str, str] = os.environ) -> World:
    """Read this process's rank from torchrun's variables; without them the run is one process.

    Raises:
        ConfigError: if only some of the variables are set, or one is not a number.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if not any(name in environment for name in names[:2]):
        return World()
    try:
        rank, size, local_rank = (int(environment[name]) for name in names)
    except KeyError as error:
        found = ", ".join(f"{name}={environment[name]}" for name in names if name in environment)
        problem = f"found {found} but no {error.args[0]}; start the run with torchrun, which sets all of them."
        raise ConfigError("environment", [problem]) from None
    except ValueError:
        found = ", ".join(f"{name}={environment[name]!r}" for name in names)
        raise ConfigError("environment", [f"found {found}, wanted whole numbers; torchrun sets them."]) from None
    return World(rank, size, local_rank)
