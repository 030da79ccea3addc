"""Which parameters are decayed, in which order."""

import pytest
import torch

from bert_pytorch.optim.groups import parameter_groups

BERT_NAMES = {
    "bert.embeddings.word_embeddings.weight": True,
    "bert.embeddings.position_embeddings.weight": True,
    "bert.embeddings.LayerNorm.weight": False,
    "bert.embeddings.LayerNorm.bias": False,
    "bert.encoder.layer.0.attention.self.query.weight": True,
    "bert.encoder.layer.0.attention.self.query.bias": False,
    "bert.encoder.layer.0.attention.output.LayerNorm.gamma": False,
    "bert.encoder.layer.0.attention.output.LayerNorm.beta": False,
    "bert.encoder.layer.0.intermediate.dense.weight": True,
    "bert.pooler.dense.bias": False,
    "cls.predictions.bias": False,
    "cls.predictions.transform.LayerNorm.weight": False,
    "cls.seq_relationship.weight": True,
}


def named(names):
    return [(name, torch.nn.Parameter(torch.ones(1))) for name in names]


def test_biases_and_layer_norm_take_no_decay_and_the_order_is_the_models():
    decayed, undecayed = parameter_groups(named(BERT_NAMES), weight_decay=0.01)
    assert [name for name, _ in decayed["params"]] == [name for name, decays in BERT_NAMES.items() if decays]
    assert [name for name, _ in undecayed["params"]] == [name for name, decays in BERT_NAMES.items() if not decays]
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.01, 0.0)


def test_a_name_that_only_contains_the_word_is_decayed():
    (group,) = parameter_groups(named(["encoder.biaffine.weight", "alphabeta.weight"]), weight_decay=0.01)
    assert len(group["params"]) == 2


def test_frozen_parameters_are_left_out():
    pairs = named(["a.weight", "b.weight"])
    pairs[0][1].requires_grad_(False)
    (group,) = parameter_groups(pairs, weight_decay=0.01)
    assert [name for name, _ in group["params"]] == ["b.weight"]


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="no parameter to train"):
        parameter_groups([], weight_decay=0.01)
