"""E2: a last layer computed only where a loss reads it gives the losses and gradients of the whole one."""

import pytest
import torch
from torch import Tensor

from bert_pytorch.models.attention import AttentionName, PaddedSdpa
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.models.wanted import WantedTokens
from tests.support.architectures import ARCHITECTURES, config_of, spread_model
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import random_batch

CPU = torch.device("cpu")
LENGTHS = (5, 17, 9, 33, 1, 12)


def losses_and_gradients(model: PretrainingModel, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    terms = model(batch, with_accuracy=True)
    losses = [terms.mlm_loss_sum] + ([] if terms.nsp_loss_sum is None else [terms.nsp_loss_sum])
    torch.stack(losses).sum().backward()
    return torch.stack(losses).detach(), {name: tensor.grad.clone() for name, tensor in model.named_parameters()}


def both(model: PretrainingModel, batch: PackedBatch) -> tuple[float, float]:
    """Return the errors of losses and gradients."""
    model.prunes_last_layer = True
    found = losses_and_gradients(model, batch)
    model.prunes_last_layer = False
    wanted = losses_and_gradients(model, batch)
    return relative_error(found[0], wanted[0]), largest_error(found[1], wanted[1])


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["reference", "sdpa", "padded"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_losses_and_gradients_equal_those_of_the_whole_layer(
    name: str, attention: str, dtype: torch.dtype, tolerance: float
) -> None:
    config = config_of(name)
    chosen: AttentionName = "reference" if attention == "reference" else "sdpa"
    model = spread_model(config, attention=chosen).to(dtype)
    if attention == "padded":
        model._attentions[CPU, False] = PaddedSdpa()
    batch = random_batch(LENGTHS, pairs=config.next_sentence)
    assert max(both(model, batch)) < tolerance


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_a_masked_first_token_and_a_sequence_without_masks_change_nothing(name: str) -> None:
    config = config_of(name)
    model = spread_model(config).double()
    batch = random_batch(LENGTHS, pairs=config.next_sentence)
    masked = torch.tensor([0, 3, 5, 6, 7, 64])  # the first tokens of two sequences; none in three of them
    batch = batch._replace(masked_positions=masked, labels=masked + 7)
    assert max(both(model, batch)) < 1e-9


def test_recomputed_activations_give_the_same_gradients_where_pruned() -> None:
    model = spread_model(config_of("modernbert", hidden_dropout_prob=0.3)).train()
    batch = random_batch(LENGTHS, pairs=False)
    results = []
    for model.checkpoint_activations in (False, True):
        torch.manual_seed(3)
        results.append(losses_and_gradients(model, batch)[1])
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_separate_projections_equal_fused_ones_where_pruned() -> None:
    model = spread_model(config_of("modernbert")).double()
    batch = random_batch(LENGTHS, pairs=False)
    fused = losses_and_gradients(model, batch)[1]
    for layer in model.bert.encoder.layer:
        layer.attention.self.query.register_forward_hook(lambda *call: None)  # then each is called
    assert largest_error(losses_and_gradients(model, batch)[1], fused) < 1e-9


@pytest.mark.parametrize("pairs", [True, False])
def test_the_last_layer_computes_masked_and_first_tokens_only(pairs: bool) -> None:
    model = spread_model(config_of("bert" if pairs else "bert_without_pairs"))
    rows: dict[str, int] = {}
    last = model.bert.encoder.layer[-1]
    for part, module in (("query", last.attention.self.query), ("output", last.output.dense)):
        module.register_forward_hook(lambda _, inputs, __, part=part: rows.update({part: len(inputs[0])}))
    batch = random_batch(LENGTHS, pairs=pairs)
    model(batch)
    wanted = len(batch.masked_positions) + (len(LENGTHS) if pairs else 0)
    assert rows == {"query": wanted, "output": wanted}
    assert wanted < len(batch.input_ids) / 2


def test_each_use_finds_its_token() -> None:
    batch = random_batch(LENGTHS)
    batch = batch._replace(masked_positions=torch.cat([batch.masked_positions, torch.tensor([5, 0])]))
    wanted = WantedTokens.of(batch, with_firsts=True)
    assert (wanted.tokens.diff() >= 0).all()
    assert torch.equal(wanted.tokens[wanted.masked], batch.masked_positions)
    assert torch.equal(wanted.tokens[wanted.firsts], batch.cu_seqlens[:-1].long())
