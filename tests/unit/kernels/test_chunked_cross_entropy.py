"""The loss in pieces against torch's cross-entropy of all scores, in float64 and in 16 bits."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.kernels.chunked_cross_entropy import chunked_cross_entropy
from bert_pytorch.kernels.cpu import references_only
from bert_pytorch.models import heads
from bert_pytorch.models.build import build_model
from bert_pytorch.records import IGNORED_LABEL
from tests.support.no_waiting import no_waiting
from tests.support.packed_batches import random_batch, small_config

LABELS = torch.tensor([1, 4, IGNORED_LABEL, 0, 2, IGNORED_LABEL, 6])


def inputs(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((7, 6), (9, 6), (9,))
    return [torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for size in sizes]


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_loss_and_gradients_are_those_of_all_scores_at_once(rows_at_once: int) -> None:
    given = inputs()
    loss = chunked_cross_entropy(*given, LABELS, rows_at_once)
    hidden, weight, bias = given
    wanted = F.cross_entropy(F.linear(hidden, weight, bias), LABELS, ignore_index=IGNORED_LABEL, reduction="sum")
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    found, expected = torch.autograd.grad(loss * 0.3, given), torch.autograd.grad(wanted * 0.3, given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_sixteen_bit_products_lose_no_more_than_their_rounding() -> None:
    given, exact = (
        inputs(torch.bfloat16),
        [value.detach().double().requires_grad_() for value in inputs(torch.bfloat16)],
    )
    loss, wanted = chunked_cross_entropy(*given, LABELS, 3), chunked_cross_entropy(*exact, LABELS)
    assert loss.dtype == torch.float32
    assert abs(loss.item() - wanted.item()) < 2**-8 * wanted.item()  # scores are rounded to 8 bits
    for ours, theirs in zip(torch.autograd.grad(loss, given), torch.autograd.grad(wanted, exact), strict=True):
        assert (ours.double() - theirs).abs().max() < 4 * 2**-8 * theirs.abs().max()


def test_nothing_gives_zero() -> None:
    hidden, weight, bias = inputs()
    loss = chunked_cross_entropy(hidden[:0], weight, bias, LABELS[:0])
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, weight)[0].any()


def test_nothing_waits_for_the_device() -> None:
    given = inputs()
    with no_waiting():
        chunked_cross_entropy(*given, LABELS, 3).backward()


def test_a_model_with_many_masked_tokens_takes_it_and_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, results = [], []
    monkeypatch.setattr(
        heads, "chunked_cross_entropy", lambda *given, **how: taken.append(1) or chunked_cross_entropy(*given, **how)
    )
    for limit in (0, heads.WHOLE_SCORES):
        monkeypatch.setattr(heads, "WHOLE_SCORES", limit)
        model = build_model(small_config())
        with references_only():
            loss = model(random_batch((30, 7, 19))).mlm_loss_sum
            loss.backward()
        results.append([loss.detach(), *(value.grad for value in model.parameters() if value.grad is not None)])
    assert len(taken) == 1
    for pieces, whole in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)
