"""Which ways of attending a model may use on a GPU, and how fast each is there."""
# T packed tokens, N heads, D head size

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from bert_pytorch.errors import ConfigError
from bert_pytorch.kernels import flash
from bert_pytorch.kernels.choice import Candidate, choose
from bert_pytorch.kernels.registry import triton_problem
from bert_pytorch.models.attention import (
    Attention,
    AttentionName,
    ChosenAttention,
    PaddedSdpa,
    ReferenceAttention,
)
from bert_pytorch.models.attention_cuda import FlashAttnAttention, FlexAttention, TritonAttention, VarlenAttention
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.layers import Heads
from bert_pytorch.models.patterns import Pattern
from bert_pytorch.models.row_attention import RowSdpa
from bert_pytorch.runtime.device import compute_capability
from bert_pytorch.runtime.timing import seconds_per_call


class Needs(NamedTuple):
    """What a model asks of attention."""

    dtype: torch.dtype
    """Of queries, keys and values, after autocast."""
    heads: int
    head_size: int
    dropout_p: float
    patterns: Mapping[Pattern, int]
    """In how many layers each occurs."""
    fixed_rows: bool = False

    @classmethod
    def of(cls, model: nn.Module, dtype: torch.dtype, *, fixed_rows: bool) -> "Needs":
        """Read them off a model's layers."""
        found = [module for module in model.modules() if isinstance(module, Heads)]
        return cls(
            dtype=dtype,
            heads=found[0].heads,
            head_size=found[0].query.out_features // found[0].heads,
            dropout_p=found[0].dropout_p,
            patterns=Counter(heads.pattern for heads in found),
            fixed_rows=fixed_rows,
        )

    @property
    def windows(self) -> bool:
        """Whether some layer sees a window only."""
        return any(pattern.window is not None for pattern in self.patterns)

    @property
    def alibi(self) -> bool:
        """Whether some layer has ALiBi."""
        return any(pattern.slopes is not None for pattern in self.patterns)


class Machine(NamedTuple):
    """What is there; None where a thing can be used, else why not."""

    device_type: str
    capability: tuple[int, int] | None = None
    varlen: str | None = None
    flash_attn: str | None = None
    triton: str | None = None

    @classmethod
    def here(cls, device: torch.device, *, windows: bool) -> "Machine":
        """Look."""
        capability = compute_capability(device)
        return cls(
            device.type,
            capability,
            flash.varlen_problem(windows=windows),
            flash.flash_attn_problem(),
            triton_problem(device.type, capability),
        )


def candidates(needs: Needs, machine: Machine) -> list[Candidate]:
    """Return every way of attending and why it cannot be used, the ones that are fast on most GPUs first.

    `reference` is not among them: it is used where a person asks for it.
    """
    old = machine.capability is None or machine.capability < (8, 0)
    gpu = "no CUDA GPU of compute capability 8.0 or more" if machine.device_type != "cuda" or old else None
    wide = None if needs.dtype in (torch.bfloat16, torch.float16) else f"it takes 16-bit numbers, not {needs.dtype}"
    dropout = f"it has no dropout (attention_probs_dropout_prob {needs.dropout_p})" if needs.dropout_p else None
    alibi = "it has no ALiBi" if needs.alibi else None
    size = needs.head_size
    flash_size = None if size % 8 == 0 and size <= 256 else f"head size {size}, wanted a multiple of 8 up to 256"
    tile_size = None if size in (16, 32, 64, 128) else f"head size {size}, wanted 16, 32, 64 or 128"
    return [
        Candidate("varlen", gpu or machine.varlen or wide or alibi or dropout or flash_size),
        Candidate("flash_attn", gpu or machine.flash_attn or wide or flash_size),
        Candidate("triton", gpu or machine.triton or wide or dropout or tile_size),
        Candidate("flex", gpu or machine.triton or dropout or tile_size),
        Candidate("sdpa"),
    ]


def without_slow_starts(found: list[Candidate], saved: str | None) -> list[Candidate]:
    """Leave FlexAttention out where a kernel made for packed sequences can be used and the run does not use it already.

    Measuring it takes a compiler some seconds of every start, and on an H100 it took three times as long as `triton` at
    128 tokens and twice at 512 (benchmarks/results/2026-11-26_gpu.md).
    """
    ready = [each.name for each in found if each.problem is None and each.name in ("varlen", "flash_attn", "triton")]
    if not ready or saved == "flex":
        return found
    problem = f"not measured where {ready[0]} can be used, which was always faster and compiles nothing"
    return [each._replace(problem=each.problem or problem) if each.name == "flex" else each for each in found]


def choose_on_gpu(
    model: nn.Module,
    asked: AttentionName,
    device: torch.device,
    dtype: torch.dtype,
    fixed_rows: bool,
    *,
    saved: str | None = None,
    lengths: Sequence[int] | None = None,
) -> ChosenAttention:
    """Choose how a model attends on a CUDA GPU.

    Args:
        model: has attention layers.
        asked: what a person asked for, or `auto`.
        device: the GPU.
        dtype: of queries, keys and values.
        fixed_rows: whether batches have `row_length`.
        saved: what the run used so far.
        lengths: of a batch to measure with; None: nothing is measured.

    Raises:
        ConfigError: if what is asked for cannot be used.
    """
    if asked == "reference":
        return ChosenAttention(ReferenceAttention(), "asked for")
    needs = Needs.of(model, dtype, fixed_rows=fixed_rows)
    found = candidates(needs, Machine.here(device, windows=needs.windows))
    if asked == "auto":
        found = without_slow_starts(found, saved)
    try:
        name, reason = choose(
            found,
            asked=None if asked == "auto" else asked,
            saved=saved,
            measure=None if lengths is None else lambda name: measured_seconds(name, needs, lengths, device),
        )
    except ValueError as error:
        raise ConfigError("--attention", [f"{error} Give one of those, or leave it out."]) from None
    return ChosenAttention(make_attention(name, fixed_rows=fixed_rows), reason)


def current_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products at this moment, as autocast has it."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32


def make_attention(name: str, *, fixed_rows: bool) -> Attention:
    """Return the way of attending that is called `name`, on a GPU."""
    if name == "sdpa" and fixed_rows:
        return RowSdpa()
    makers: dict[str, Callable[[], Attention]] = {
        "varlen": VarlenAttention,
        "flash_attn": FlashAttnAttention,
        "triton": TritonAttention,
        "flex": FlexAttention,
        "sdpa": PaddedSdpa,
        "reference": ReferenceAttention,
    }
    return makers[name]()


def measured_seconds(name: str, needs: Needs, lengths: Sequence[int], device: torch.device) -> float:
    """Return how long a model attends to a batch, forward and backward: the plan, then each layer.

    Args:
        name: of the way of attending.
        needs: of the model.
        lengths: of the batch's sequences; with fixed rows all of one length.
        device: where.
    """
    attention, batch = (
        make_attention(name, fixed_rows=needs.fixed_rows),
        sample_batch(lengths, device, needs.fixed_rows),
    )
    generator = torch.Generator(device).manual_seed(0)
    shape = (len(batch.input_ids), 3, needs.heads, needs.head_size)
    qkv = torch.randn(shape, generator=generator, device=device, dtype=needs.dtype).requires_grad_()
    plan = attention.plan(batch)

    def layer(pattern: Pattern) -> None:
        query, key, value = qkv.unbind(1)
        output = attention(query, key, value, plan, pattern, needs.dropout_p)
        torch.autograd.grad(output, qkv, output)

    seconds = seconds_per_call(lambda: attention.plan(batch), device)
    for pattern, layers in needs.patterns.items():
        seconds += layers * seconds_per_call(lambda pattern=pattern: layer(pattern), device)  # type: ignore[misc]
    return seconds


def sample_batch(lengths: Sequence[int], device: torch.device, fixed_rows: bool = False) -> PackedBatch:
    """Make a batch of sequences of these lengths, whose tokens mean nothing."""
    edges = torch.tensor([0, *lengths]).cumsum(0).int()
    positions = torch.cat([torch.arange(length, dtype=torch.int32) for length in lengths]).to(device)
    nothing = torch.zeros(0, dtype=torch.int64, device=device)
    return PackedBatch(
        input_ids=torch.zeros_like(positions),
        token_type_ids=torch.zeros_like(positions),
        position_ids=positions,
        cu_seqlens=edges.to(device),
        masked_positions=nothing,
        labels=nothing,
        next_sentence_labels=None,
        lengths=tuple(lengths),
        row_length=lengths[0] if fixed_rows else None,
    )
