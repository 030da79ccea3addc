"""Attention: the reference against the formula, the fast ones against the reference."""

import pytest
import torch

from bert_pytorch.models.attention import (
    Attention,
    PaddedSdpa,
    ReferenceAttention,
    RowSdpa,
    SequenceWiseSdpa,
    choose_attention,
)
from bert_pytorch.models.patterns import FULL
from tests.support.packed_batches import random_batch

CPU = torch.device("cpu")
FAST = [SequenceWiseSdpa(), PaddedSdpa()]


def attend(attention: Attention, lengths: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output and the gradient of queries, keys and values for a fixed random weighting of it."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=generator, dtype=dtype).requires_grad_()
    output = attention(*qkv.unbind(1), attention.plan(random_batch(lengths)), FULL, 0.0)
    output.backward(torch.randn(output.shape, generator=generator, dtype=dtype))
    return output.detach(), qkv.grad


@pytest.mark.parametrize("lengths", [(6, 1, 13), (4, 4, 4), (9,)])
def test_reference_is_the_formula_for_each_token(lengths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=generator, dtype=torch.float64)
    reference = ReferenceAttention()
    found = reference(*qkv.unbind(1), reference.plan(random_batch(lengths)), FULL, 0.0)
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    for start, length in zip(starts, lengths, strict=True):
        for token in range(start, start + length):
            for head in range(2):
                query, keys, values = qkv[token, 0, head], *qkv[start : start + length, 1:, head].unbind(1)
                weights = torch.exp(keys @ query / 8**0.5)
                wanted = (weights / weights.sum()) @ values
                assert torch.allclose(found[token, head * 8 : head * 8 + 8], wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("attention", FAST, ids=lambda attention: type(attention).__name__)
@pytest.mark.parametrize("lengths", [(6, 1, 13), (4, 4, 4), (9,), (70, 33)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_fast_attention_equals_reference(
    attention: Attention, lengths: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    for found, wanted in zip(
        attend(attention, lengths, dtype), attend(ReferenceAttention(), lengths, dtype), strict=True
    ):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_row_attention_equals_reference(dtype: torch.dtype, tolerance: float) -> None:
    slots = [6, 0, 5, 0, 11, 0, 0, 0, 0, 4, 0, 7, 1, 2, 8, 0, 0, 0, 0, 11]  # rows of 11: three slots and padding
    batch = random_batch([length for length in slots if length])._replace(
        cu_seqlens=torch.tensor([0, *slots]).cumsum(0).int(), row_length=11
    )
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(55, 3, 2, 8, generator=generator, dtype=dtype)
    weights = torch.randn(55, 16, generator=generator, dtype=dtype)
    results = []
    for attention in (RowSdpa(), ReferenceAttention()):
        qkv = given.clone().requires_grad_()
        output = attention(*qkv.unbind(1), attention.plan(batch), FULL, 0.0)
        output.backward(weights)
        results.append((output.detach(), qkv.grad))
    for found, wanted in zip(*results, strict=True):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize("attention", [*FAST, ReferenceAttention()], ids=lambda attention: type(attention).__name__)
def test_dropout_keeps_the_mean_and_drops_the_given_share(attention: Attention) -> None:
    lengths = (50, 50, 40)
    qkv = torch.randn(140, 3, 40, 4)
    qkv[:, 0] = 0  # uniform attention to values of 1: each output is the mean of kept / (1 - p)
    qkv[:, 2] = 1
    torch.manual_seed(0)
    output = attention(*qkv.unbind(1), attention.plan(random_batch(lengths)), FULL, 0.25)
    per_head = output.view(140, 40, 4)[:100, :, 0]  # sequences of 50 keys
    assert abs(per_head.mean().item() - 1) < 0.01
    deviation = (0.25 / 0.75 / 50) ** 0.5  # of the mean of 50 variables that are 0 (p) or 1 / (1 - p)
    assert abs(per_head.std().item() / deviation - 1) < 0.1


def test_choice_is_told_with_its_reason() -> None:
    assert choose_attention("auto", CPU, 0.0).attention.name == "sdpa"
    assert "fastest" in choose_attention("auto", CPU, 0.0).reason
    assert isinstance(choose_attention("reference", CPU, 0.0).attention, ReferenceAttention)
    assert isinstance(choose_attention("sdpa", torch.device("cuda"), 0.0).attention, PaddedSdpa)
    for device in (CPU, torch.device("cuda")):
        assert isinstance(choose_attention("auto", device, 0.0, fixed_rows=True).attention, RowSdpa)
        assert isinstance(choose_attention("reference", device, 0.0, fixed_rows=True).attention, ReferenceAttention)
    assert "rows" in choose_attention("auto", CPU, 0.0, fixed_rows=True).reason
    assert "attention_probs_dropout_prob 0.1" in choose_attention("auto", CPU, 0.1).reason
