"""Attention on packed tokens against the reference: what a CPU can run here, the rest on a GPU."""

import importlib.util

import pytest
import torch
from torch import Tensor

from bert_pytorch.kernels import flash
from bert_pytorch.kernels.attention import Bias, Sequences, attention_reference
from bert_pytorch.models.attention import Attention, Narrowing, ReferenceAttention
from bert_pytorch.models.attention_cuda import FlashAttnAttention, FlexAttention, TritonAttention, VarlenAttention
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.patterns import FULL, Pattern
from tests.support.kernel_checks import DEVICE
from tests.support.packed_batches import random_batch

PATTERNS = [FULL, Pattern(window=3), Pattern(slopes=(0.5, 0.03)), Pattern(window=5, slopes=(1.0, 0.25))]
LENGTHS = (6, 1, 23, 13)
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_flash_attn = pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="no flash-attn")


def attend(
    attention: Attention, pattern: Pattern, dtype: torch.dtype, queries: Tensor | None = None, size: int = 16
) -> tuple[Tensor, ...]:
    """Return the output and the gradient of a joint projection for a fixed random weighting of the output."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3, 2, size, generator=generator).to(DEVICE, dtype).requires_grad_()
    weights = torch.randn(sum(LENGTHS), 2 * size, generator=generator).to(DEVICE, dtype)
    batch = on_device(random_batch(LENGTHS))
    plan = attention.plan(batch)
    query, key, value = qkv.unbind(1)
    if queries is not None:
        assert isinstance(attention, Narrowing)
        queries = queries.to(DEVICE)
        plan, query, weights = attention.narrowed(plan, batch, queries), query[queries], weights[queries]
    if isinstance(attention, FlexAttention) and DEVICE.type == "cpu":  # torch has no backward pass for it there
        return (attention(query.detach(), key.detach(), value.detach(), plan, pattern, 0.0),)
    output = attention(query, key, value, plan, pattern, 0.0)
    output.backward(weights)
    return output.detach(), qkv.grad


def on_device(batch: PackedBatch) -> PackedBatch:
    return batch._make(value.to(DEVICE) if isinstance(value, Tensor) else value for value in batch)


def assert_as_reference(attention, pattern, dtype=torch.float32, queries=None, size=16, tolerance=3e-6) -> None:
    found = attend(attention, pattern, dtype, queries, size)
    for ours, theirs in zip(found, attend(ReferenceAttention(), pattern, torch.float64, queries, size), strict=False):
        assert (ours.double() - theirs).abs().max() <= tolerance * theirs.abs().max()


SOME = torch.tensor([0, 0, 3, 6, 8, 9, 29, 30, 42])
"""A first token stands twice; of the third sequence three ask."""


@pytest.mark.parametrize("queries", [None, SOME], ids=["all", "some"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    "attention", [FlexAttention(), pytest.param(TritonAttention(), marks=needs_triton)], ids=lambda way: way.name
)
def test_attention_on_packed_tokens_equals_reference(attention, pattern, queries) -> None:
    assert_as_reference(attention, pattern, queries=queries)


@pytest.mark.parametrize(
    "attention", [FlexAttention(), pytest.param(TritonAttention(), marks=needs_triton)], ids=lambda way: way.name
)
def test_rows_of_fixed_length_with_empty_slots_equal_reference(attention) -> None:
    slots = [6, 0, 5, 0, 11, 0, 0, 0, 0, 4, 0, 7]  # rows of 11: three slots and padding
    batch = on_device(random_batch([length for length in slots if length]))
    fixed = batch._replace(cu_seqlens=torch.tensor([0, *slots], device=DEVICE).cumsum(0).int(), row_length=11)
    qkv = torch.randn(33, 3, 2, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    found = attention(*qkv.unbind(1), attention.plan(fixed), FULL, 0.0)
    reference = ReferenceAttention()
    torch.testing.assert_close(found, reference(*qkv.unbind(1), reference.plan(batch), FULL, 0.0))


def dense_varlen(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)) -> Tensor:
    """What torch documents of `varlen_attn`, dense: without a window queries may be fewer than keys."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert type(max_q) is type(max_k) is int
    assert max_q >= cu_seq_q.diff().max()
    assert max_k >= cu_seq_k.diff().max()
    window = None if window_size == (-1, -1) else window_size[0]
    places = None
    if len(query) != len(key):
        assert window is None, "FlashAttention counts from the end where queries are fewer than keys"
        places = torch.zeros(len(query), dtype=torch.int32)
    return attention_reference(
        query, key, value, Sequences(cu_seq_q, cu_seq_k, max_q, max_k, places), Bias(None, window)
    )


@pytest.mark.parametrize("queries", [None, SOME], ids=["all", "some"])
@pytest.mark.parametrize("pattern", [FULL, Pattern(window=3)])
def test_varlen_gives_torch_what_its_documentation_asks_for(pattern, queries, monkeypatch) -> None:
    monkeypatch.setattr(flash, "_loaded", lambda module, function: dense_varlen)
    assert_as_reference(VarlenAttention(), pattern, queries=queries)


def test_this_torch_has_varlen_with_windows() -> None:
    assert flash.varlen_problem(windows=True) is None


def test_a_missing_package_says_what_to_install() -> None:
    if importlib.util.find_spec("flash_attn") is None:
        assert "pip install flash-attn" in flash.flash_attn_problem()


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
@pytest.mark.parametrize("queries", [None, SOME], ids=["all", "some"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("attention", "patterns"),
    [
        (VarlenAttention(), [FULL, Pattern(window=3)]),
        pytest.param(FlashAttnAttention(), PATTERNS, marks=needs_flash_attn),
        (FlexAttention(), PATTERNS),
        pytest.param(TritonAttention(), PATTERNS, marks=needs_triton),
    ],
    ids=["varlen", "flash_attn", "flex", "triton"],
)
def test_sixteen_bit_attention_equals_reference(attention, patterns, dtype, queries) -> None:
    for pattern in patterns:  # probabilities, scores' gradients and results are rounded to 8 (11) bits
        tolerance = 1.5e-2 if dtype == torch.bfloat16 else 2e-3
        assert_as_reference(attention, pattern, dtype, queries, size=64, tolerance=tolerance)
