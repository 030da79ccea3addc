"""Layer-wise learning rates: each layer a fixed part of the one above, and an update of exactly that size."""

import pytest
import torch

from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.groups import LEARNING_RATE_SCALE, layer_of
from tests.support.packed_batches import small_config


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert.embeddings.word_embeddings.weight", 0),
        ("bert.embeddings.LayerNorm.bias", 0),
        ("bert.encoder.layer.0.attention.self.query.weight", 1),
        ("bert.encoder.layer.11.output.LayerNorm.weight", 12),
        ("bert.LayerNorm.weight", 13),
        ("bert.pooler.dense.weight", 13),
        ("classifier.weight", 13),
    ],
)
def test_every_parameter_has_its_layer(name: str, layer: int) -> None:
    assert layer_of(name, 12) == layer


def test_scales_fall_from_the_head_to_the_embeddings_and_each_parameter_is_in_one_group() -> None:
    model = TaskModel(small_config(), "sequence_classification", 2)
    optimizer = build_optimizer(OptimizerConfig(optimizer="adamw"), model.named_parameters(), layer_decay=0.5, layers=2)
    scale = {name: group[LEARNING_RATE_SCALE] for group in optimizer.param_groups for name in group["param_names"]}
    assert scale.keys() == dict(model.named_parameters()).keys()
    assert scale["classifier.weight"] == scale["bert.pooler.dense.bias"] == 1
    assert scale["bert.encoder.layer.1.output.dense.weight"] == 0.5
    assert scale["bert.encoder.layer.0.output.dense.weight"] == 0.25
    assert scale["bert.embeddings.word_embeddings.weight"] == 0.125
    decays = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    assert decays["bert.encoder.layer.0.output.dense.bias"] == 0
    assert decays["bert.encoder.layer.0.output.dense.weight"] == 0.01


def test_without_decay_groups_are_those_of_pretraining() -> None:
    parameters = [("a.weight", torch.nn.Parameter(torch.ones(2)))]
    (group,) = build_optimizer(OptimizerConfig(optimizer="adamw"), parameters).param_groups
    assert LEARNING_RATE_SCALE not in group
