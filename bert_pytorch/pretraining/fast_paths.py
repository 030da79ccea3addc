"""Which attention and which kernels a session uses: chosen by rank 0, told to all, kept in the checkpoint."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from bert_pytorch.kernels.cases import Shape, one_step
from bert_pytorch.kernels.registry import KernelName, choose_kernels, describe, triton_problem, use
from bert_pytorch.models.attention_choice import current_dtype
from bert_pytorch.models.layers import GatedIntermediate, Intermediate, ResidualOutput
from bert_pytorch.optim.lamb import Lamb, LambImplementation
from bert_pytorch.pretraining.session import Learner, Session
from bert_pytorch.runtime.device import compute_capability, forget_peak_memory
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


def settle_fast_paths(session: Session, learner: Learner, saved: Mapping[str, Any]) -> FastPaths:
    """Choose on rank 0 and use the same on every rank; all ranks call this together.

    Args:
        session: of this run.
        learner: its model and optimizer.
        saved: `choices` of the checkpoint that is continued; empty for a new run or phase.

    Raises:
        ConfigError: if the attention asked for cannot be used.
    """
    fixed_rows = session.config.packing == "rows"
    longest, most_tokens = session.corpus.training.sequence_length, session.config.max_tokens
    most = session.config.local_batch_size if most_tokens is None else max(1, most_tokens // longest)
    lengths = sample_lengths(most, longest, fixed_rows=fixed_rows)
    with session.precision.autocast():
        dtype = current_dtype(session.device)

    def choose() -> tuple[str, dict[KernelName, str]]:
        known = saved.get("attention_used")
        chosen = learner.model.select_attention(
            session.device, fixed_rows=fixed_rows, dtype=dtype, saved=known, lengths=lengths
        )
        logger.info("attention: %s: %s", chosen.attention.name, chosen.reason)
        return chosen.attention.name, _choose_kernels(session, learner, sum(lengths), dtype, saved.get("kernels_used"))

    attention, kernels = session.world.on_first(choose)
    forget_peak_memory(session.device)  # measuring is no part of training
    if not session.world.is_first:
        learner.model.select_attention(session.device, fixed_rows=fixed_rows, dtype=dtype, saved=attention)
    use(kernels, session.device.type)
    if isinstance(learner.optimizer, Lamb):
        learner.optimizer.implementation = lamb_implementation(kernels)
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


def kernels_of(learner: Learner) -> list[KernelName]:
    """Return the fused steps that a model and its optimizer have."""
    kinds = {type(module) for module in learner.model.modules()}
    has: dict[KernelName, bool] = {
        "residual_norm": ResidualOutput in kinds,
        "bias_gelu": Intermediate in kinds,
        "geglu": GatedIntermediate in kinds,
        "lamb": isinstance(learner.optimizer, Lamb),
    }
    return [name for name, there in has.items() if there]


def _choose_kernels(
    session: Session, learner: Learner, tokens: int, dtype: torch.dtype, saved: Mapping[str, str] | None
) -> dict[KernelName, str]:
    model, device = session.model_config, session.device
    shape = Shape(tokens, model.hidden_size, model.intermediate_size, model.hidden_dropout_prob, dtype, device)

    def measure(name: KernelName, way: str) -> float:
        if name == "lamb":
            return _lamb_seconds(lamb_implementation({"lamb": way}), device)
        return seconds_per_call(one_step(name, way, shape), device)

    problem = triton_problem(device.type, compute_capability(device))
    used = kernels_of(learner)
    choices = choose_kernels(problem, compiled=session.config.compile, saved=saved, measure=measure, measured=used)
    told = _CPU_PASSES if device.type == "cpu" else describe({name: choices[name] for name in used})
    logger.info("kernels: %s", told)
    return {name: choice.name for name, choice in choices.items()}


def _lamb_seconds(implementation: LambImplementation, device: torch.device) -> float:
    weights = [torch.ones(1024, 1024, device=device) for _ in range(LAMB_ELEMENTS // 2**20)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    return seconds_per_call(Lamb(weights, implementation=implementation).step, device)
