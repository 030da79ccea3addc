"""LAMB and AdamW by Habana's fused kernels: the numbers and the checkpoints of our own.  Driven by a stand-in."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.habana import HabanaAdamW, HabanaLamb
from bert_pytorch.optim.norms import clipping_on
from bert_pytorch.optim.state import load_optimizer_state
from bert_pytorch.runtime import hpu
from bert_pytorch.runtime.device import storable
from tests.support.habana import gaudi

HPU = torch.device("hpu")
RATES = (2e-2, 1e-2, 3e-2, 5e-3)


@pytest.fixture
def calls() -> Iterator[list[str]]:
    with gaudi(lazy=True) as made:
        hpu.load(compiles=False, dynamic_shapes=False)
        yield made


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
    with torch.no_grad():
        model[2].weight.zero_()  # of norm 0: no trust ratio
    return model


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, rates: tuple[float, ...], first: int = 0) -> None:
    for number, rate in enumerate(rates, first):
        generator = np.random.default_rng(number)
        for parameter in model.parameters():
            gradient = torch.from_numpy(generator.standard_normal(tuple(parameter.shape))).to(torch.float32)
            parameter.grad = gradient.to(parameter.device)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()


def built(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(config, model.named_parameters())


def test_lamb_by_habanas_kernel_has_the_numbers_and_the_state_of_ours(calls: list[str]) -> None:
    config = OptimizerConfig(optimizer="lamb", adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-3, weight_decay=0.1)
    host, device = small_model(), small_model().to(HPU)
    ours, fused = built(config, host), built(config, device)
    assert isinstance(fused, HabanaLamb)
    take_steps(host, ours, RATES)
    take_steps(device, fused, RATES)
    assert calls.count("FusedLamb.step") == len(RATES)
    same_weights(device, host)
    same_state(fused, ours)


@pytest.mark.parametrize("steps", [1, 4])
def test_adamw_by_habanas_kernel_is_the_formula_with_its_own_place_for_epsilon(calls: list[str], steps: int) -> None:
    config = OptimizerConfig(optimizer="adamw", adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-2, weight_decay=0.1)
    device = small_model().to(HPU)
    fused = built(config, device)
    assert isinstance(fused, HabanaAdamW)
    take_steps(device, fused, RATES[:steps])
    assert calls.count("FusedAdamW.step") == steps
    weights = [parameter.detach().double().numpy() for parameter in small_model().parameters()]
    names = [name for name, _ in small_model().named_parameters()]
    firsts, seconds = ([np.zeros_like(weight) for weight in weights] for _ in range(2))
    for number, rate in enumerate(RATES[:steps]):
        generator = np.random.default_rng(number)
        correction1, correction2 = 1 - 0.8 ** (number + 1), 1 - 0.95 ** (number + 1)
        for index, name in enumerate(names):
            gradient = generator.standard_normal(weights[index].shape)
            firsts[index] = 0.8 * firsts[index] + 0.2 * gradient
            seconds[index] = 0.95 * seconds[index] + 0.05 * gradient**2
            decay = 0.0 if name.endswith("bias") else 0.1
            epsilon = 1e-2 / math.sqrt(correction2)
            update = firsts[index] / correction1 / (np.sqrt(seconds[index] / correction2) + epsilon)
            weights[index] = (1 - rate * decay) * weights[index] - rate * update
    for parameter, wanted in zip(device.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().cpu().numpy(), wanted, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_a_checkpoint_goes_on_from_either_to_the_other(calls: list[str], name: Any) -> None:
    config = OptimizerConfig(optimizer=name, adam_epsilon=1e-9)  # so small that its place does not matter
    straight, host = small_model(), small_model()
    whole, begun = built(config, straight), built(config, host)
    take_steps(straight, whole, RATES)
    take_steps(host, begun, RATES[:1])
    device = copy.deepcopy(host).to(HPU)
    fused = built(config, device)
    load_optimizer_state(fused, copy.deepcopy(begun.state_dict()), "a checkpoint")
    take_steps(device, fused, RATES[1:3], first=1)
    saved = storable({"model": device.state_dict(), "optimizer": fused.state_dict()}, HPU)
    assert all(type(tensor) is torch.Tensor for tensor in saved["model"].values())
    back = small_model()
    back.load_state_dict(saved["model"])
    again = built(config, back)
    assert not isinstance(again, HabanaLamb | HabanaAdamW)
    load_optimizer_state(again, saved["optimizer"], "a checkpoint")
    take_steps(back, again, RATES[3:], first=3)
    same_weights(back, straight)
    same_state(again, whole)


def test_without_habanas_kernels_our_own_optimizers_take_the_steps(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hpu, "fused_optimizer", lambda name: None)
    config = OptimizerConfig(optimizer="lamb")
    host, device = small_model(), small_model().to(HPU)
    ours, there = built(config, host), built(config, device)
    assert not isinstance(there, HabanaLamb)
    take_steps(host, ours, RATES)
    take_steps(device, there, RATES)
    same_weights(device, host)


def test_gradients_are_scaled_down_by_habanas_kernel_to_the_norm_that_is_asked_for(calls: list[str]) -> None:
    device = small_model().to(HPU)
    clip = clipping_on(HPU, list(device.parameters()), 0.5)
    for parameter in device.parameters():
        parameter.grad = torch.ones_like(parameter)
    count = sum(parameter.numel() for parameter in device.parameters())
    clip([parameter.grad for parameter in device.parameters() if parameter.grad is not None], math.sqrt(count))
    assert calls[-1] == "FusedClipNorm.clip_norm"
    wanted = 0.5 / (math.sqrt(count) + 1e-6)
    for parameter in device.parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.cpu().numpy(), wanted, rtol=1e-6)


def same_weights(found: nn.Module, wanted: nn.Module) -> None:
    for one, other in zip(found.parameters(), wanted.parameters(), strict=True):
        np.testing.assert_allclose(one.detach().cpu().numpy(), other.detach().numpy(), rtol=2e-5, atol=2e-7)


def same_state(found: torch.optim.Optimizer, wanted: torch.optim.Optimizer) -> None:
    one, other = storable(found.state_dict(), HPU), wanted.state_dict()
    assert [set(group) for group in one["param_groups"]] == [set(group) for group in other["param_groups"]]
    assert [group.get("step") for group in one["param_groups"]] == [
        group.get("step") for group in other["param_groups"]
    ]
    assert one["state"].keys() == other["state"].keys()
    for index, moments in other["state"].items():
        assert list(one["state"][index]) == list(moments)
        for name, value in moments.items():
            np.testing.assert_allclose(one["state"][index][name].numpy(), value.numpy(), rtol=2e-5, atol=1e-9)
