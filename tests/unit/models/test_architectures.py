"""What holds for every architecture, whatever its parts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows
from bert_pytorch.data.row_packing import pack_lengths
from bert_pytorch.models.build import ARCHITECTURES as CLASSES
from bert_pytorch.models.build import build_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.optim.groups import is_undecayed
from tests.support.architectures import ARCHITECTURES, config_of, spread_model
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import random_batch, random_micro_batch

LENGTHS = (5, 17, 9, 33, 1, 12)
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def batch_for(name: str, lengths: tuple[int, ...] = LENGTHS) -> PackedBatch:
    return random_batch(lengths, pairs=config_of(name).next_sentence)


def gradients(model: PretrainingModel, batch: PackedBatch) -> dict[str, Tensor]:
    model.zero_grad()
    terms = model(batch)
    (terms.mlm_loss_sum if terms.nsp_loss_sum is None else terms.mlm_loss_sum + terms.nsp_loss_sum).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@every_architecture
def test_the_model_type_decides_what_is_built(name: str) -> None:
    config = config_of(name)
    assert type(build_model(config)) is CLASSES[config.model_type]


@every_architecture
def test_changing_one_sequence_leaves_the_others(name: str) -> None:
    model, batch = spread_model(config_of(name)), batch_for(name)
    ids = batch.input_ids.clone()
    ids[5:22] = (ids[5:22] + 1) % 203  # the second sequence
    before, after = model.encode(batch), model.encode(batch._replace(input_ids=ids))
    others = [*range(5), *range(22, 77)]
    assert torch.allclose(before[others], after[others], atol=1e-6)
    assert not torch.isclose(before[5:22], after[5:22], atol=1e-3).all(dim=1).any()


@every_architecture
def test_the_place_of_a_word_matters(name: str) -> None:
    model, batch = spread_model(config_of(name)), batch_for(name, (20,))
    turned = batch._replace(input_ids=batch.input_ids.flip(0), token_type_ids=torch.zeros_like(batch.token_type_ids))
    straight = batch._replace(token_type_ids=torch.zeros_like(batch.token_type_ids))
    # ALiBi and windows know distances alone, which reversing keeps; rotary and embedded positions know directions.
    same = torch.allclose(model.encode(turned).flip(0), model.encode(straight), atol=1e-4)
    assert same == (name == "mosaic_bert")
    moved = straight._replace(input_ids=straight.input_ids.roll(3))
    assert not torch.allclose(model.encode(moved).roll(-3, 0), model.encode(straight), atol=1e-3)


@every_architecture
def test_fixed_rows_give_the_losses_and_gradients_of_packed_sequences(name: str) -> None:
    config = config_of(name)
    packed = random_micro_batch(LENGTHS, pairs=config.next_sentence)
    plan = pack_lengths(np.diff(packed.cu_seqlens), 40, 3)
    shape = RowShape(plan.num_rows + 1, 40, 3, packed.num_masked + 7, 11)
    laid = lay_in_rows(packed, RowPlaces(plan.rows, plan.slots), shape)
    model = spread_model(config).double()
    wanted = gradients(model, PackedBatch.from_numpy(packed, "cpu"))
    found = gradients(model, PackedBatch.from_numpy(laid, "cpu"))
    assert largest_error(found, wanted) < 1e-9


@every_architecture
@pytest.mark.parametrize("attention", ["sdpa", "reference"])
def test_no_masked_token_gives_every_parameter_a_zero_gradient(name: str, attention: str) -> None:
    model, batch = spread_model(config_of(name), attention=attention), batch_for(name)
    batch = batch._replace(masked_positions=batch.masked_positions[:0], labels=batch.labels[:0])
    terms = model(batch)
    assert terms.mlm_loss_sum == 0
    (terms.mlm_loss_sum if terms.nsp_loss_sum is None else terms.mlm_loss_sum + 0 * terms.nsp_loss_sum).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


@every_architecture
def test_every_parameter_learns_and_padding_rows_never_do(name: str) -> None:
    model = spread_model(config_of(name))
    found = gradients(model, batch_for(name))
    words = found.pop("bert.embeddings.word_embeddings.weight")
    assert words.shape[0] == 208
    assert not words[203:].any()
    assert all(gradient.any() for gradient in found.values())


@every_architecture
def test_recomputed_activations_give_the_same_gradients_with_dropout(name: str) -> None:
    model, batch = spread_model(config_of(name, hidden_dropout_prob=0.3)).train(), batch_for(name)
    results = []
    for model.checkpoint_activations in (False, True):
        torch.manual_seed(3)
        results.append(gradients(model, batch))
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@every_architecture
def test_bfloat16_autocast_is_near_and_sums_in_float32(name: str) -> None:
    model, batch = spread_model(config_of(name, initializer_range=0.05)), batch_for(name)
    wanted = model(batch).mlm_loss_sum
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch).mlm_loss_sum
    found.backward()
    assert found.dtype == torch.float32
    assert found != wanted
    assert relative_error(found, wanted) < 2e-2  # bfloat16 has 8 bits of mantissa


@every_architecture
def test_weights_are_decayed_and_biases_and_norms_are_not(name: str) -> None:
    for key, parameter in build_model(config_of(name)).named_parameters():
        assert is_undecayed(key) == (parameter.dim() == 1), key


def test_modernbert_sums_small_outputs_and_has_one_bias() -> None:
    config = config_of("modernbert", initializer_range=0.02, hidden_size=256, intermediate_size=256)
    model = build_model(config, seed=1)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            deviation = 0.02 / 8**0.5 if name.endswith("output.dense") else 0.02  # two blocks in each of four layers
            assert abs(module.weight.std().item() / deviation - 1) < 5 / (2 * module.weight.numel()) ** 0.5, name
    assert [name for name, _ in model.named_parameters() if name.endswith("bias")] == ["cls.predictions.bias"]
