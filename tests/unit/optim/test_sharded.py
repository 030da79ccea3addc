"""Who keeps which parameter's state, without other processes; real ranks: tests/numerics/test_sharded_ranks.py."""

import random
from unittest import mock

import pytest
import torch

from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import load_model_config
from bert_pytorch.optim import sharded
from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.lamb import Lamb, LambImplementation
from bert_pytorch.optim.sharded import MOMENTS, Sharding, largest_state, owners_of
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.ranks import Ranks
from tests.support.data import REPOSITORY


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_no_rank_keeps_more_than_its_equal_part_and_the_largest_parameter(ranks: int) -> None:
    draw = random.Random(ranks)
    for _ in range(50):
        sizes = [draw.choice((1, 64, 4096, 10**6)) * draw.randint(1, 9) for _ in range(draw.randint(1, 60))]
        owners = owners_of(sizes, ranks)
        kept = [sum(size for size, owner in zip(sizes, owners, strict=True) if owner == rank) for rank in range(ranks)]
        assert sum(kept) == sum(sizes)
        assert max(kept) <= sum(sizes) / ranks + max(sizes)


def test_eight_ranks_keep_an_eighth_of_bert_large_and_64_are_bounded_by_its_word_embeddings() -> None:
    config = load_model_config(REPOSITORY / "config" / "models" / "bert_large_uncased.json")
    with torch.device("meta"):
        parameters = list(build_model(config).parameters())
    whole = largest_state(parameters, 1)
    assert whole == 2 * 4 * sum(parameter.numel() for parameter in parameters)
    assert largest_state(parameters, 8) < 1.01 * whole / 8
    assert largest_state(parameters, 64) == 2 * 4 * 30528 * 1024


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_an_optimizer_keeps_as_much_a_parameter_as_is_foretold(name: str) -> None:
    layer = torch.nn.Linear(30, 40)
    optimizer = build_optimizer(OptimizerConfig.model_validate({"optimizer": name}), layer.named_parameters())
    layer(torch.ones(2, 30)).sum().backward()
    optimizer.step()
    for parameter, state in optimizer.state.items():
        assert sum(each.numel() for each in state.values() if each.dim()) == MOMENTS * parameter.numel()


def test_one_rank_keeps_all_whether_asked_to_shard_or_not() -> None:
    layer = torch.nn.Linear(3, 4)
    optimizer = build_optimizer(OptimizerConfig(shard_optimizer=True), layer.named_parameters())
    sharding = Sharding(optimizer, World(), shards=True)
    layer(torch.ones(2, 3)).sum().backward()
    with sharding.each_its_own():
        optimizer.step()
    state = sharding.state_dict()
    assert len(state["state"]) == 2
    assert sharding.own_part(state) is state


@pytest.mark.parametrize("implementation", ["reference", "foreach", "triton"])
def test_every_path_of_lamb_updates_what_is_the_ranks_own_as_without_sharding(
    implementation: LambImplementation,
) -> None:
    if implementation == "triton":
        pytest.importorskip("triton")
    wanted, _ = _lamb(implementation)
    for _ in range(3):
        _give_gradients(wanted)
        wanted.step()
    touched: set[int] = set()
    for rank in range(3):
        lamb, began = _lamb(implementation)
        sharding = Sharding(lamb, World(Ranks(rank, 3)), shards=True)
        with mock.patch.object(sharded, "spread"):
            for _ in range(3):
                _give_gradients(lamb)
                with sharding.each_its_own():
                    lamb.step()
        mine = {
            at for at, (found, first) in enumerate(zip(_weights(lamb), began, strict=True)) if (found != first).any()
        }
        assert mine
        assert not mine & touched
        touched |= mine
        assert len(lamb.state) == len(mine)
        for at in mine:
            assert torch.equal(_weights(lamb)[at], _weights(wanted)[at])
    assert touched == set(range(len(_weights(wanted))))


def _lamb(implementation: LambImplementation) -> tuple[Lamb, list[torch.Tensor]]:
    """Return LAMB over six tensors in two groups, and what these begin as."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(50, 70), (7,), (40, 64), (5,), (9, 64), (64,)]
    weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    groups = [{"params": weights[::2], "weight_decay": 0.03}, {"params": weights[1::2], "weight_decay": 0.0}]
    lamb = Lamb(groups, lr=0.02, implementation=implementation)
    return lamb, [weight.detach().clone() for weight in _weights(lamb)]


def _weights(lamb: Lamb) -> list[torch.Tensor]:
    return [weight for group in lamb.param_groups for weight in group["params"]]


def _give_gradients(lamb: Lamb) -> None:
    generator = torch.Generator().manual_seed(1)
    for weight in _weights(lamb):
        weight.grad = torch.randn(weight.shape, generator=generator)
