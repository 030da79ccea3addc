"""The CPU's own passes equal torch's operators, forward and backward.

`gradcheck` compares gradients with finite differences in float64: independent of any formula of ours.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from bert_pytorch.kernels import cross_entropy
from bert_pytorch.kernels.cpu import references_only, takes_cpu_kernels
from bert_pytorch.kernels.cpu_attention import short_attention
from bert_pytorch.kernels.cpu_dropout import KeepMask, dropout
from bert_pytorch.kernels.cpu_embedding import tied_lookup
from bert_pytorch.kernels.cpu_residual_norm import residual_norm, residual_norm_reference
from bert_pytorch.kernels.cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from bert_pytorch.models.build import build_model
from bert_pytorch.records import IGNORED_LABEL
from tests.support.packed_batches import random_batch, small_config


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Of a weighted sum of the result, so that no two entries have the same gradient."""
    weights = torch.linspace(-1, 2, result.numel(), dtype=result.dtype).view(result.shape)
    return list(torch.autograd.grad((result * weights).sum(), inputs))


def assert_same(ours: Callable[..., Tensor], reference: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    """float64, so that only an error of the formula exceeds the tolerance."""
    torch.testing.assert_close(ours(*inputs), reference(*inputs), rtol=1e-12, atol=1e-12)
    pairs = zip(gradients(ours(*inputs), inputs), gradients(reference(*inputs), inputs), strict=True)
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
def test_residual_norm_equals_its_reference(bias: bool) -> None:
    inputs = [drawn(5, 6), drawn(5, 6, seed=1), drawn(6), *([drawn(6, seed=1)] if bias else [])]

    def with_bias(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *values: function(*values[:3], values[3] if bias else None, 1e-6, 0.0)

    assert_same(with_bias(residual_norm), with_bias(residual_norm_reference), inputs)


def test_the_backward_pass_of_residual_norm_drops_what_the_forward_pass_dropped() -> None:
    def seeded(*values: Tensor) -> Tensor:
        torch.manual_seed(3)
        return residual_norm(*values, 1e-6, 0.4)

    assert gradcheck(seeded, [drawn(5, 6), drawn(5, 6, seed=1), drawn(6), drawn(6, seed=1)])


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_keeps_its_share_and_its_mean(p: float) -> None:
    torch.manual_seed(0)
    count = 1_000_003  # no multiple of the four entries that one random number decides
    kept = dropout(torch.ones(count, requires_grad=True), p)
    share = (kept == 0).float().mean().item()
    assert abs(share - p) < 5 * (p * (1 - p) / count) ** 0.5 + 1 / (1 << 17)  # 5 sigma, and the grain of 16 bits
    assert abs(kept.double().mean().item() - 1) < 5 * (p / (1 - p) / count) ** 0.5
    neighbours = (kept[:-1] == 0) & (kept[1:] == 0)
    assert abs(neighbours.double().mean().item() - p * p) < 5 * p / count**0.5  # one decides nothing of the next


def test_dropout_follows_torch_s_generator() -> None:
    torch.manual_seed(5)
    first = KeepMask(torch.Size([3, 7]), 0.5).kept(torch.float32)
    torch.manual_seed(5)
    assert torch.equal(KeepMask(torch.Size([3, 7]), 0.5).kept(torch.float32), first)
    assert not torch.equal(KeepMask(torch.Size([3, 7]), 0.5).kept(torch.float32), first)


def test_dropout_has_the_gradient_of_its_mask() -> None:
    def seeded(hidden: Tensor) -> Tensor:
        torch.manual_seed(3)
        return dropout(hidden, 0.4)

    assert gradcheck(seeded, [drawn(4, 5)])


def test_a_tied_look_up_has_the_sum_of_both_gradients() -> None:
    weight, ids = drawn(7, 4), torch.tensor([1, 1, 5, 0], dtype=torch.int32)

    def ours(weight: Tensor) -> Tensor:
        rows, decoder = tied_lookup(weight, ids)
        return rows.sin() @ decoder.mT

    def reference(weight: Tensor) -> Tensor:
        return F.embedding(ids, weight).sin() @ weight.mT

    assert_same(ours, reference, [weight])
    assert gradcheck(lambda weight: tied_lookup(weight, ids)[0], [weight])
    assert gradcheck(lambda weight: tied_lookup(weight, ids)[0].sum() + tied_lookup(weight, ids)[1].sum(), [weight])


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20], ids=["computed again", "kept"])
@pytest.mark.parametrize("rows_at_once", [2, 512])
def test_the_joined_loss_equals_decoder_and_cross_entropy(
    kept_bytes: int, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "_ROWS_AT_ONCE", rows_at_once)
    labels = torch.tensor([1, 4, IGNORED_LABEL, 0, 2])

    def padded(bias: Tensor) -> Tensor:
        return F.pad(bias, (0, 2), value=-torch.inf)

    assert_same(
        lambda hidden, weight, bias: linear_cross_entropy(hidden, weight, padded(bias), labels, kept_bytes=kept_bytes),
        lambda hidden, weight, bias: linear_cross_entropy_reference(hidden, weight, padded(bias), labels),
        [drawn(5, 6), drawn(7, 6), drawn(5)],
    )


def test_the_joined_loss_survives_a_label_whose_probability_underflows() -> None:
    hidden = torch.tensor([[1.0]], requires_grad=True)
    weight, bias, labels = torch.tensor([[200.0], [0.0]]), torch.zeros(2), torch.tensor([1])
    loss = linear_cross_entropy(hidden, weight, bias, labels)
    assert loss.item() == 200.0
    loss.backward()
    assert hidden.grad is not None
    assert hidden.grad.item() == 200.0


def test_the_joined_loss_of_nothing_is_zero_with_zero_gradients() -> None:
    inputs = [drawn(0, 6), drawn(7, 6), drawn(7)]
    loss = linear_cross_entropy(*inputs, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize("asking", [None, [0, 1, 4, 6, 7, 7]], ids=["all ask", "some ask"])
def test_short_attention_equals_the_formula_in_each_sequence(asking: list[int] | None) -> None:
    lengths = [4, 1, 3, 2]
    counts = lengths if asking is None else [2, 1, 3, 0]

    def formula(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = []
        for q, k, v in zip(query.split(counts), key.split(lengths), value.split(lengths), strict=True):
            weights = torch.einsum("qnd,knd->nqk", q, k).div(q.shape[-1] ** 0.5).exp()
            mixed.append(torch.einsum("nqk,knd->qnd", weights / weights.sum(-1, keepdim=True), v).flatten(1))
        return torch.cat(mixed)

    wide = drawn(10, 3, 2, 4)  # queries, keys and values are views of one tensor, as of joined projections

    def views(wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = wide.unbind(1)
        return (query if asking is None else query[asking]), key, value

    assert_same(lambda wide: short_attention(*views(wide), counts, lengths), lambda wide: formula(*views(wide)), [wide])


def test_cpu_passes_are_taken_only_where_they_pay_and_are_exact() -> None:
    hidden = torch.zeros(1)
    assert takes_cpu_kernels(hidden)
    with torch.no_grad():
        assert not takes_cpu_kernels(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes_cpu_kernels(hidden)
    assert not takes_cpu_kernels(hidden.to("meta"))
    with references_only():
        assert not takes_cpu_kernels(hidden)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
def test_a_model_s_losses_and_gradients_are_those_of_torch_s_operators(model_type: str) -> None:
    pairs = model_type == "bert"
    model = build_model(small_config(model_type=model_type, next_sentence=pairs)).double()
    batch = random_batch([9, 30, 1, 17], pairs=pairs)

    def losses_and_gradients() -> list[Tensor]:
        terms = model(batch)
        loss = terms.mlm_loss_sum + (0 if terms.nsp_loss_sum is None else 3 * terms.nsp_loss_sum)
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    ours = losses_and_gradients()
    with references_only():
        wanted = losses_and_gradients()
    for mine, reference in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10)
