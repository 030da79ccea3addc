"""Compiling parts of a model (`torch.compile`), where the machine can."""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from bert_pytorch.config.settings import Settings
from bert_pytorch.runtime import hpu

logger = logging.getLogger(__name__)


class CompileConfig(Settings):
    """Compilation."""

    compile: bool = False
    """Compile what lies between attentions (projections, activations, dropout, residual sums, LayerNorms) into fused
    kernels. Costs up to a minute at the start; without a C++ compiler (CPU) or Triton (GPU) the run goes on uncompiled,
    with a warning. On Gaudi: eager mode and Habana's compiler, in place of lazy mode."""


class Compilation(NamedTuple):
    """Whether this machine can compile for a device."""

    works: bool
    reason: str


def try_compiler(device: torch.device) -> Compilation:
    """Compile one small function for `device` and run it, forward and backward: nothing less tells whether it works."""
    started = time.perf_counter()
    try:
        value = torch.ones(16, device=device, requires_grad=True)
        torch.compile(_small, **_how(device))(value).backward()
    except Exception as error:  # a missing compiler, linker or header, each in an exception of its own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Compilation(False, f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}")
    return Compilation(True, f"a first function took {time.perf_counter() - started:.0f} s")


def _how(device: torch.device) -> dict[str, Any]:
    """Return how `torch.compile` compiles for a device: for all sizes at once, but on Gaudi for those that come."""
    return {"backend": hpu.COMPILER} if device.type == "hpu" else {"dynamic": True}


def _small(value: Tensor) -> Tensor:
    return (torch.nn.functional.gelu(value) * 2).sum()


def compile_modules(modules: Iterable[nn.Module], device: torch.device) -> bool:
    """Compile modules in place: names of parameters stay, each is compiled when it is first called.

    Modules of one kind and size share their code, and it holds for batches of all sizes.

    Returns:
        Whether they were compiled; the log tells why not.
    """
    compilation = try_compiler(device)
    if not compilation.works:
        logger.warning(
            "compile: not possible here, so the run goes on without (%s). A CPU needs a C++ compiler (apt-get install "
            "g++), a GPU Triton, a Gaudi Habana's PyTorch.",
            compilation.reason,
        )
        return False
    count = 0
    for module in modules:
        module.compile(**_how(device))
        count += 1
    logger.info("compile: %d modules, when they are first called (%s)", count, compilation.reason)
    return True


def record_graphs(module: nn.Module, sample: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """Record a module's forward and backward pass as CUDA graphs.

    Args:
        module: maps tensors to a tuple of tensors without asking for any value; its parameters stay where they are.
        sample: arguments, of the shapes of all calls.

    Returns:
        What replays them: results and gradients are good until the next call.
    """
    recorded = torch.cuda.make_graphed_callables(module, sample, allow_unused_input=True)
    return cast(Callable[..., tuple[Tensor, ...]], recorded)
