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
from bert_pytorch.models.patterns import FULL, Pattern, Rotation, alibi_slopes
from tests.support.packed_batches import random_batch

CPU = torch.device("cpu")
FAST = [SequenceWiseSdpa(), PaddedSdpa()]
PATTERNS = [FULL, Pattern(window=2), Pattern(slopes=(0.5, 0.03)), Pattern(window=5, slopes=(1.0, 0.25))]


def attend(
    attention: Attention,
    lengths: tuple[int, ...],
    dtype: torch.dtype,
    pattern: Pattern,
    queries: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output and the gradient of queries, keys and values for a fixed random weighting of it."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=generator, dtype=dtype).requires_grad_()
    weights = torch.randn(sum(lengths), 16, generator=generator, dtype=dtype)
    batch = random_batch(lengths)
    plan = attention.plan(batch)
    query, key, value = qkv.unbind(1)
    if queries is not None:
        plan, query, weights = attention.narrowed(plan, batch, queries), query[queries], weights[queries]
    output = attention(query, key, value, plan, pattern, 0.0)
    output.backward(weights)
    return output.detach(), qkv.grad


def by_token(qkv: torch.Tensor, lengths: tuple[int, ...], pattern: Pattern) -> torch.Tensor:
    """Compute the formula for each token and head by itself."""
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    wanted = torch.zeros(len(qkv), 16, dtype=qkv.dtype)
    for start, length in zip(starts, lengths, strict=True):
        for token in range(start, start + length):
            first, stop = start, start + length
            if pattern.window is not None:
                first, stop = max(first, token - pattern.window), min(stop, token + pattern.window + 1)
            for head in range(2):
                query, keys, values = qkv[token, 0, head], *qkv[first:stop, 1:, head].unbind(1)
                scores = keys @ query / 8**0.5
                if pattern.slopes is not None:
                    scores = scores - pattern.slopes[head] * (torch.arange(first, stop) - token).abs().double()
                wanted[token, head * 8 : head * 8 + 8] = torch.exp(scores) / torch.exp(scores).sum() @ values
    return wanted


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("lengths", [(6, 1, 13), (4, 4, 4), (9,)])
def test_reference_is_the_formula_for_each_token(lengths: tuple[int, ...], pattern: Pattern) -> None:
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=generator, dtype=torch.float64)
    reference = ReferenceAttention()
    found = reference(*qkv.unbind(1), reference.plan(random_batch(lengths)), pattern, 0.0)
    assert torch.allclose(found, by_token(qkv, lengths, pattern), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("attention", FAST, ids=lambda attention: type(attention).__name__)
@pytest.mark.parametrize("lengths", [(6, 1, 13), (4, 4, 4), (9,), (70, 33), (16, 17, 18, 70)])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_fast_attention_equals_reference(
    attention: Attention, lengths: tuple[int, ...], dtype: torch.dtype, tolerance: float, pattern: Pattern
) -> None:
    for found, wanted in zip(
        attend(attention, lengths, dtype, pattern),
        attend(ReferenceAttention(), lengths, dtype, pattern),
        strict=True,
    ):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=5 * tolerance)


@pytest.mark.parametrize("attention", [*FAST, ReferenceAttention()], ids=lambda attention: type(attention).__name__)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("lengths", [(6, 1, 13), (4, 5, 4, 7), (20,)])
@pytest.mark.parametrize("asked", [[0, 3, 3, 7, 19], [5], [], list(range(20))], ids=str)
def test_narrowed_attention_equals_the_rows_of_the_whole(
    attention: Attention, pattern: Pattern, lengths: tuple[int, ...], asked: list[int]
) -> None:
    queries = torch.tensor(asked, dtype=torch.int64)
    found, gradient = attend(attention, lengths, torch.float64, pattern, queries)
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(20, 3, 2, 8, generator=generator, dtype=torch.float64)
    assert torch.allclose(found, by_token(whole, lengths, pattern)[queries], rtol=1e-12, atol=1e-14)
    qkv = whole.clone().requires_grad_()
    weights = torch.randn(20, 16, generator=generator, dtype=torch.float64)  # as in `attend`
    reference = ReferenceAttention()
    output = reference(*qkv.unbind(1), reference.plan(random_batch(lengths)), pattern, 0.0)
    output[queries].backward(weights[queries])
    assert torch.allclose(gradient, qkv.grad, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_row_attention_equals_reference(dtype: torch.dtype, tolerance: float, pattern: Pattern) -> None:
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
        output = attention(*qkv.unbind(1), attention.plan(batch), pattern, 0.0)
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


def test_alibi_slopes_are_the_published_ones() -> None:
    assert alibi_slopes(8) == tuple(2.0**-power for power in range(1, 9))  # section 3: 1/2, 1/4, …, 1/256
    assert alibi_slopes(16)[:3] == (2**-0.5, 2**-1, 2**-1.5)
    # the authors' code for 12 heads: those of 8, then the first, third, … of 16
    assert alibi_slopes(12) == (*alibi_slopes(8), *alibi_slopes(16)[:8:2])
    assert alibi_slopes(1) == (2**-8,)


def test_rotated_scores_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 3, 8, generator=generator, dtype=torch.float64)
    scores = []
    for first, second in ((0, 5), (7, 12), (8000, 8005)):
        at = [Rotation.at(torch.tensor([place]), 8, 10_000.0, torch.float64) for place in (first, second)]
        scores.append((at[0].turn(query) * at[1].turn(key)).sum(-1))
    assert torch.allclose(scores[0], scores[1], rtol=1e-11)
    assert torch.allclose(scores[0], scores[2], rtol=1e-9)
    assert not torch.allclose(scores[0], (query * key).sum(-1))


def test_rotation_turns_each_pair_by_its_angle() -> None:
    heads = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turned = Rotation.at(torch.tensor([0, 4, 31]), 8, 100.0, torch.float64).turn(heads)
    pairs = torch.view_as_complex(torch.stack(heads.chunk(2, dim=2), dim=3))
    angles = torch.tensor([[0.0], [4.0], [31.0]], dtype=torch.float64) * 100.0 ** (
        -torch.arange(4.0, dtype=torch.float64) / 4
    )
    wanted = pairs * torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    assert torch.allclose(turned, torch.cat([wanted.real, wanted.imag], dim=2), rtol=1e-12)
