"""All ranks of an allocation compute and exchange messages: how fast, who is slow, who does not answer."""

import contextlib
import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from pydantic import Field

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.diagnosis.report import Message, RankFound, Report, as_json, describe
from bert_pytorch.errors import EXIT_DONE, BertPytorchError, ToldElsewhereError
from bert_pytorch.runtime.device import DeviceName, choose_device
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.front_door import run_on_ranks
from bert_pytorch.runtime.peak import measured_flops
from bert_pytorch.runtime.placement import Affinity, PlacementConfig, take_processors
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.runtime.rendezvous import RendezvousConfig, machine_name
from bert_pytorch.runtime.timing import synchronize

PROGRAM = "launch check"
DESCRIPTION = "Measure all-reduces over all ranks and matrix products on each, and name the slow ones."

T = TypeVar("T")

SIZES = tuple(1 << bits for bits in (3, 12, 16, 20, 24, 28))
"""Bytes: 8 for the latency, up to 256 MiB for the bandwidth."""
PRODUCTS = {"cpu": (1024, 1024, 4096, 1), "cuda": (16384, 1024, 4096, 1), "hpu": (16384, 1024, 4096, 1)}
"""BERT-large's widest product, for as many tokens as keep a device busy."""
MIB = 1 << 20
_FEWEST, _MOST = 3, 1000
_STORE_SECONDS = 5.0
_SETTLING_SECONDS = 10.0
"""How long ranks look for each other after a collective failed, which they notice at slightly different times."""


class CheckConfig(RendezvousConfig):
    """Options of the check."""

    device: DeviceName = "auto"
    """As of a training run."""
    cpu_affinity: Affinity = "auto"
    """As of a training run."""
    largest_mib: float | None = Field(None, gt=0)
    """Largest message; by default 256 on GPUs and Gaudis, 16 on CPUs."""
    seconds_per_size: float = Field(0.5, gt=0)
    """How long messages of one size are exchanged."""
    slow_factor: float = Field(1.2, gt=1)
    """How many times slower than the median a rank may compute without a warning."""
    stage_seconds: float = Field(60.0, gt=0)
    """How long ranks wait for one that does not answer before it is named."""
    rendezvous_timeout_minutes: float = Field(2.0, gt=0)
    """How long ranks wait for each other at the start; then those missing are named."""
    as_json: bool = False
    """Print the report as one line of JSON."""

    renamed_flags: ClassVar[dict[str, str]] = {"json": "--as_json"}


def main() -> int:
    """Run the check on this rank; returns its exit code."""
    return run_on_ranks(CheckConfig, run_check, program=PROGRAM, description=DESCRIPTION)


def run_check(resolved: Resolved[CheckConfig], world: World) -> int:
    """Join the other ranks, measure, and let rank 0 print the report.

    Raises:
        BertPytorchError: if a rank does not answer, which is named.
    """
    config = resolved.settings
    place = PlacementConfig(device=config.device, cpu_affinity=config.cpu_affinity)
    processors = take_processors(place, world)
    chosen = choose_device(place, world.local_rank)
    world.connect(chosen.device, datetime.timedelta(seconds=config.stage_seconds))
    check = _Check(config, world, chosen.device)
    ranks = check.compute(chosen.reason, processors)
    report = Report(world.network, check.exchange(), tuple(ranks))
    if world.is_first:
        lines = [json.dumps(as_json(report, config.slow_factor))] if config.as_json else _told(report, config)
        sys.stdout.write("\n".join([*lines, ""]))
    world.disconnect()
    return EXIT_DONE


def _told(report: Report, config: CheckConfig) -> list[str]:
    return list(describe(report, config.slow_factor))


class _Check:
    """The stages of a check on one rank; in each, a rank that does not come is named within `stage_seconds`."""

    def __init__(self, config: CheckConfig, world: World, device: torch.device) -> None:
        self._config = config
        self._world = world
        self._device = device
        self._machines = ["?"] * world.size
        self._machines = self._stage("meeting", lambda: world.from_first(world.gather(machine_name(os.environ))))

    def compute(self, device: str, processors: str) -> list[RankFound]:
        """Time matrix products, each rank its own, and gather them on rank 0."""
        world = self._world
        dtype = choose_precision(PrecisionConfig(), self._device).dtype
        flops = measured_flops([PRODUCTS[self._device.type]], self._device, dtype)
        mine = RankFound(world.rank, self._machines[world.rank], device, processors, flops)
        return self._stage("matrix products", lambda: world.gather(mine))

    def exchange(self) -> tuple[Message, ...]:
        """Time all-reduces of all sizes."""
        if self._world.size == 1:
            return ()
        on_card = self._device.type != "cpu"
        largest = (self._config.largest_mib or (256 if on_card else 16)) * MIB
        dtypes = (torch.float32, torch.bfloat16) if on_card else (torch.float32,)
        found = []
        for dtype in dtypes:
            name = str(dtype).removeprefix("torch.")
            for size in (size for size in SIZES if size <= max(largest, SIZES[0])):
                seconds = self._stage(f"all-reduce of {size} bytes, {name}", lambda: self._seconds(size, dtype))  # noqa: B023
                found.append(Message(name, size, seconds))
        return tuple(found)

    def _seconds(self, num_bytes: int, dtype: torch.dtype) -> float:
        """Return the mean time of an all-reduce, after one whose sum is checked and one for the number of rounds."""
        world, device = self._world, self._device
        tensor = torch.ones(num_bytes // dtype.itemsize, dtype=dtype, device=device)
        world.start_adding(tensor)()
        exact = world.size <= 256 or dtype == torch.float32  # bf16 has 8 bits
        if exact and not bool((tensor == world.size).all()):
            raise BertPytorchError(
                f"rank {world.rank} on {self._machines[world.rank]}: a sum of {num_bytes} bytes over {world.size} "
                "ranks is wrong. Leave this machine or its network out, and tell whoever runs it."
            )
        tensor.zero_()
        once = self._timed(tensor, 1)
        rounds = world.from_first(min(max(int(self._config.seconds_per_size / once), _FEWEST), _MOST))
        return world.sum([self._timed(tensor, rounds)])[0] / world.size

    def _timed(self, tensor: torch.Tensor, rounds: int) -> float:
        synchronize(self._device)
        self._world.sum([0.0])  # so that all begin together
        begun = time.perf_counter()
        for _ in range(rounds):
            self._world.start_adding(tensor)()
        synchronize(self._device)
        return (time.perf_counter() - begun) / rounds

    def _stage(self, name: str, work: Callable[[], T]) -> T:
        """Wait for all ranks and do something together.

        Raises:
            BertPytorchError: naming the ranks that did not come, on the first of the others.
            ToldElsewhereError: on the rest.
        """
        self._refuse_gaps(name, self._missing(name, self._config.stage_seconds))
        try:
            return work()
        except RuntimeError as error:
            # A collective failed: whoever still answers comes here.
            self._refuse_gaps(name, self._missing(f"after {name}", _SETTLING_SECONDS))
            raise BertPytorchError(f"{name}: failed on rank {self._world.rank} ({_first_line(error)}).") from error

    def _missing(self, name: str, seconds: float) -> list[int]:
        """Return the ranks that do not come; rank 0 where the store does not answer, which it or its torchrun keeps."""
        answer: list[list[int]] = []

        def ask() -> None:
            with contextlib.suppress(RuntimeError):
                answer.append(self._world.missing_at(f"stage {name}", seconds))

        asking = threading.Thread(target=ask, daemon=True)  # a store whose process hangs keeps one waiting for ever
        asking.start()
        asking.join(seconds + _STORE_SECONDS)
        return answer[0] if answer else [0]

    def _refuse_gaps(self, name: str, missing: list[int]) -> None:
        if not missing:
            return
        listed = ", ".join(f"rank {rank} on {self._machines[rank]}" for rank in missing[:20])
        more = f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        message = (
            f"{name}: {listed}{more} did not answer within {self._config.stage_seconds:g} s. Look whether the process "
            "or its machine hangs; --stage_seconds waits longer."
        )
        teller = next((rank for rank in range(self._world.size) if rank not in missing), 0)
        if self._world.rank == teller:
            raise BertPytorchError(message)
        raise ToldElsewhereError(message)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
