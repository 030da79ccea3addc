"""Initial weights: one distribution for all layers, a function of the seed alone."""

import torch
from torch import nn

from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.initialization import initialize_weights
from tests.support.packed_batches import small_config


def test_every_layer_is_drawn_from_one_distribution() -> None:
    model = BertForPreTraining(small_config(initializer_range=0.02), seed=1)
    weights = biases = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = module.weight[:203] if name.endswith("word_embeddings") else module.weight
            n = weight.numel()
            assert abs(weight.mean().item()) < 5 * 0.02 / n**0.5, name
            assert abs(weight.std().item() / 0.02 - 1) < 5 / (2 * n) ** 0.5, name
            weights += 1
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all(), name
        if getattr(module, "bias", None) is not None:
            assert (module.bias == 0).all(), name
            biases += 1
    assert weights == 3 + 2 * 6 + 1 + 1 + 1  # embeddings, layers, pooler, transform, next sentence
    assert biases == 1 + 2 * (6 + 2) + 1 + 2 + 1 + 1


def test_the_seed_alone_decides() -> None:
    one, same, other = (BertForPreTraining(small_config(), seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(9)
    again = BertForPreTraining(small_config(), seed=1)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
        assert torch.equal(tensor, again.state_dict()[name])
        assert tensor.dim() == 1 or not torch.equal(tensor, other.state_dict()[name])


def test_no_two_matrices_are_alike() -> None:
    model = BertForPreTraining(small_config())
    squares = [parameter for parameter in model.parameters() if parameter.shape == (64, 64)]
    assert len({parameter.sum().item() for parameter in squares}) == len(squares)


def test_materialised_from_meta_equals_built_directly() -> None:
    with torch.device("meta"):
        model = BertForPreTraining(small_config(), seed=1)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    initialize_weights(model, seed=1)
    direct = BertForPreTraining(small_config(), seed=1).state_dict()
    assert all(torch.equal(tensor, direct[name]) for name, tensor in model.state_dict().items())


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    BertForPreTraining(small_config())
    assert torch.equal(torch.rand(3), wanted)
