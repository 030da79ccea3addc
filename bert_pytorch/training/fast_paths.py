"""Which attention and which kernels a session uses: chosen by rank 0, told to all, kept in the checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from bert_pytorch.kernels.cases import Shape, one_step
from bert_pytorch.kernels.registry import TORCH, KernelName, choose_kernels, describe, triton_problem, use
from bert_pytorch.models.attending import AttendingModel
from bert_pytorch.models.attention_choice import current_dtype
from bert_pytorch.models.layers import GatedIntermediate, Intermediate, ResidualOutput
from bert_pytorch.optim.lamb import Lamb, LambImplementation
from bert_pytorch.runtime.device import compute_capability, forget_peak_memory
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.runtime.timing import seconds_per_call

logger = logging.getLogger(__name__)

LAMB_ELEMENTS = 2**25
"""Weights that LAMB is measured on: enough to fill a GPU, 0.5 GiB with their gradients and moments."""


_CPU_PASSES = (
    "the CPU's own forward and backward passes (decoder with loss, tied look-up, residual with LayerNorm, dropout, "
    "attention of short sequences); torch for the rest"
)


class FastPaths(NamedTuple):
    """What a session uses."""

    attention: str
    kernels: dict[KernelName, str]

    def choices(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"attention_used": self.attention, "kernels_used": dict(self.kernels)}


def settle_fast_paths(
    model: AttendingModel,
    optimizer: torch.optim.Optimizer,
    *,
    world: World,
    device: torch.device,
    precision: Precision,
    lengths: Sequence[int],
    fixed_rows: bool,
    compiled: bool,
    saved: Mapping[str, Any],
) -> FastPaths:
    """Choose on rank 0 and use the same on every rank that can; all ranks call this together.

    Args:
        model: on `device`.
        optimizer: of its parameters.
        world: the ranks.
        device: of this rank.
        precision: of forward passes.
        lengths: of the sequences of a micro-batch to measure with.
        fixed_rows: whether batches have `row_length`.
        compiled: whether parts of the model are.
        saved: `choices` of the checkpoint that is continued; empty for a new run or phase.

    Raises:
        ConfigError: if the attention asked for cannot be used.
    """
    with precision.autocast():
        dtype = current_dtype(device)

    def choose() -> tuple[str, dict[KernelName, str]]:
        known = saved.get("attention_used")
        chosen = model.select_attention(device, fixed_rows=fixed_rows, dtype=dtype, saved=known, lengths=lengths)
        logger.info("attention: %s: %s", chosen.attention.name, chosen.reason)
        shape = Shape(
            sum(lengths),
            model.config.hidden_size,
            model.config.intermediate_size,
            model.config.hidden_dropout_prob,
            dtype,
            device,
        )
        used = kernels_of(model, optimizer)
        return chosen.attention.name, _choose_kernels(shape, used, compiled, saved.get("kernels_used"))

    attention, kernels = world.on_first(choose)
    forget_peak_memory(device)  # measuring is no part of training
    if not world.is_first:
        model.select_attention(device, fixed_rows=fixed_rows, dtype=dtype, saved=attention)
        if triton_problem(device.type, compute_capability(device)) is not None:
            kernels = dict.fromkeys(kernels, TORCH)  # a GPU of another kind than rank 0's
    use(kernels, device.type)
    if isinstance(optimizer, Lamb):
        optimizer.implementation = lamb_implementation(kernels)
    return FastPaths(attention, kernels)


def lamb_implementation(kernels: Mapping[KernelName, str]) -> LambImplementation:
    """Return LAMB's name for what was chosen."""
    return "triton" if kernels.get("lamb") == "triton" else "foreach"


def sample_lengths(sequences: int, longest: int, *, fixed_rows: bool) -> list[int]:
    """Return lengths to measure with: a quarter full, the others from an eighth of that on; rows are all full.

    Nothing is read for it: shards may lie in S3, and may be damaged.
    """
    if fixed_rows:
        return [longest] * sequences
    full = -(-sequences // 4)
    shorter = (longest * (rest + 1) / (sequences - full + 1) for rest in range(sequences - full))
    return [longest] * full + [max(longest // 8, int(length), 1) for length in shorter]


def kernels_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[KernelName]:
    """Return the fused steps that a model and its optimizer have."""
    kinds = {type(module) for module in model.modules()}
    has: dict[KernelName, bool] = {
        "residual_norm": ResidualOutput in kinds,
        "bias_gelu": Intermediate in kinds,
        "geglu": GatedIntermediate in kinds,
        "lamb": type(optimizer) is Lamb,  # one by Habana's kernels has no choice
    }
    return [name for name, there in has.items() if there]


def _choose_kernels(
    shape: Shape, used: Sequence[KernelName], compiled: bool, saved: Mapping[str, str] | None
) -> dict[KernelName, str]:
    device = shape.device

    def measure(name: KernelName, way: str) -> float:
        if name == "lamb":
            return _lamb_seconds(lamb_implementation({"lamb": way}), device)
        return seconds_per_call(one_step(name, way, shape), device)

    problem = triton_problem(device.type, compute_capability(device))
    choices = choose_kernels(problem, compiled=compiled, saved=saved, measure=measure, measured=used)
    told = _CPU_PASSES if device.type == "cpu" else describe({name: choices[name] for name in used})
    logger.info("kernels: %s", told)
    return {name: choice.name for name, choice in choices.items()}


def _lamb_seconds(implementation: LambImplementation, device: torch.device) -> float:
    weights = [torch.ones(1024, 1024, device=device) for _ in range(LAMB_ELEMENTS // 2**20)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    return seconds_per_call(Lamb(weights, implementation=implementation).step, device)
