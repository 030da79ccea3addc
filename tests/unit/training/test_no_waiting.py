"""Between the micro-batches of an update nothing waits for the device: shapes and counts are known on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from bert_pytorch.kernels.cpu import references_only
from bert_pytorch.models.attention import Attention, PaddedSdpa
from bert_pytorch.models.attention_cuda import FlexAttention, TritonAttention, VarlenAttention
from bert_pytorch.models.build import build_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.padding import PaddedLayout
from bert_pytorch.optim.lamb import Lamb
from bert_pytorch.optim.norms import global_norm
from tests.support.no_waiting import WaitError, no_waiting, on_the_host
from tests.support.packed_batches import random_micro_batch, small_config

MODELS: dict[str, dict[str, object]] = {
    "bert": {"hidden_dropout_prob": 0.1},
    "mosaic_bert": {"model_type": "mosaic_bert", "next_sentence": False},
    "modernbert": {
        "model_type": "modernbert", "next_sentence": False, "type_vocab_size": 0, "local_attention": 8,
        "global_attn_every_n_layers": 2, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
    },
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def layouts_are_made_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PaddedLayout.of` works on the host, from lengths that are there, and copies."""
    made = PaddedLayout.of

    def of(lengths: Sequence[int], device: torch.device) -> PaddedLayout:
        with on_the_host():
            return made(lengths, device)

    monkeypatch.setattr(PaddedLayout, "of", of)


def attend_anyhow(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Stand for a kernel: shaped like the queries, and dependent on all three."""
    return query * key.mean() + value.mean()


@pytest.fixture
def kernels_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has none of the kernels, or reads in them what a GPU reads itself; what is around them is asked here."""
    functions = attend_anyhow, create_block_mask
    monkeypatch.setattr("bert_pytorch.models.attention_cuda._flex_functions", lambda _: functions)
    monkeypatch.setattr("bert_pytorch.kernels.flash.varlen", attend_anyhow)
    pytest.importorskip("triton")
    monkeypatch.setattr("bert_pytorch.kernels.triton_attention.attention", attend_anyhow)


@pytest.mark.usefixtures("kernels_stand_in")
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("attention", [PaddedSdpa, FlexAttention, TritonAttention, VarlenAttention])
def test_a_micro_batch_forward_and_backward_asks_no_tensor_for_values(
    changes: dict[str, object], attention: Callable[[], Attention]
) -> None:
    if attention is VarlenAttention and changes.get("model_type") == "mosaic_bert":
        pytest.skip("it has no ALiBi")
    model = build_model(small_config(**changes))
    model._attentions[CPU, False] = attention()
    given = random_micro_batch((30, 7, 19), pairs=model.config.next_sentence)
    with references_only(), no_waiting():
        batch = PackedBatch.from_numpy(given, "cpu")
        terms = model(batch)
        loss = terms.mlm_loss_sum if terms.nsp_loss_sum is None else terms.mlm_loss_sum + terms.nsp_loss_sum
        loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_norms_and_lamb_ask_no_tensor_for_values() -> None:
    weights = [torch.randn(3, 4, requires_grad=True), torch.randn(5, requires_grad=True)]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    before = [weight.detach().clone() for weight in weights]
    with no_waiting():
        global_norm([weight.grad for weight in weights if weight.grad is not None])
        Lamb(weights, implementation="foreach").step()
    assert all(not torch.equal(old, new) for old, new in zip(before, weights, strict=True))


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: bool(x.any()),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.where(x > 0),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: x * torch.tensor(2.0, device=x.device),
    ],
)
def test_what_waits_is_found(waiting: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(WaitError), no_waiting():
        waiting(torch.ones(3))
    with no_waiting(), on_the_host():
        waiting(torch.ones(3))


def test_what_waits_in_a_backward_pass_is_found() -> None:
    x = torch.ones(3, requires_grad=True)
    x.register_hook(lambda grad: grad * grad.sum().item())
    with pytest.raises(WaitError), no_waiting():
        x.square().sum().backward()
