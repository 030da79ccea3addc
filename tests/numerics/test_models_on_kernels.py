"""A model that computes with Triton's kernels and attention equals the same model on torch, losses and gradients."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("triton")

from bert_pytorch.kernels.registry import TRITON, use
from bert_pytorch.models.attention_cuda import TritonAttention
from bert_pytorch.models.build import build_model
from tests.support.kernel_checks import DEVICE
from tests.support.packed_batches import random_batch, small_config

MODELS = {
    "bert": {},
    "bert with tanh": {"hidden_act": "gelu_tanh"},
    "mosaic_bert": {"model_type": "mosaic_bert", "next_sentence": False},
    "modernbert": {
        "model_type": "modernbert", "next_sentence": False, "type_vocab_size": 0, "local_attention": 8,
        "global_attn_every_n_layers": 2, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def kernels_off_afterwards() -> Iterator[None]:
    yield
    use({})


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_losses_and_gradients_are_those_of_torch(changes: dict[str, object]) -> None:
    results = []
    for fast in (False, True):
        use({"residual_norm": TRITON, "bias_gelu": TRITON, "geglu": TRITON} if fast else {}, DEVICE.type)
        model = build_model(small_config(**changes)).to(DEVICE)
        if fast:
            model._attentions[DEVICE, False] = TritonAttention()
        batch = random_batch((30, 7, 19), pairs=model.config.next_sentence)
        batch = batch._make(value.to(DEVICE) if isinstance(value, torch.Tensor) else value for value in batch)
        losses = model(batch)
        (losses.mlm_loss_sum + (0 if losses.nsp_loss_sum is None else losses.nsp_loss_sum)).backward()
        results.append((losses.mlm_loss_sum, {name: value.grad for name, value in model.named_parameters()}))
    (plain_loss, plain), (fast_loss, fast) = results
    torch.testing.assert_close(fast_loss, plain_loss, rtol=1e-6, atol=0)
    largest = max(grad.abs().max() for grad in plain.values())
    for name, grad in plain.items():  # small ones, as key biases' (truly zero), to 1e-6 of the largest: sums' rounding
        assert (fast[name] - grad).abs().max() <= 1e-5 * max(grad.abs().max(), 0.1 * largest), name


def test_recomputed_activations_drop_the_same_entries() -> None:
    use({"residual_norm": TRITON}, DEVICE.type)
    gradients = []
    for recompute in (False, True):
        model = build_model(small_config(hidden_dropout_prob=0.3)).to(DEVICE)
        model.checkpoint_activations = recompute
        torch.manual_seed(4)
        batch = random_batch((9, 14))
        batch = batch._make(value.to(DEVICE) if isinstance(value, torch.Tensor) else value for value in batch)
        model(batch).mlm_loss_sum.backward()
        gradients.append([value.grad for value in model.parameters() if value.grad is not None])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept, rtol=1e-5, atol=1e-6)
