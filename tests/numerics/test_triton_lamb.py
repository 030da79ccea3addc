"""LAMB's Triton kernels against its reference, which tests/unit/optim/test_lamb.py holds to the formula."""

import copy

import pytest
import torch

pytest.importorskip("triton")

from bert_pytorch.kernels import triton_lamb
from bert_pytorch.optim.lamb import Lamb
from tests.support.kernel_checks import DEVICE

SHAPES = [(50, 70), (7,), (9, 64), (1,)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks a tensor and several blocks a chunk, although tensors are small."""
    monkeypatch.setattr(triton_lamb, "CHUNK", 2048)
    monkeypatch.setattr(triton_lamb, "BLOCK", 512)


def make_lamb(implementation: str, dtype: torch.dtype, **settings: object) -> Lamb:
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_() for shape in SHAPES]
    groups = [{"params": params[::2], "weight_decay": 0.03}, {"params": params[1::2], "weight_decay": 0.0}]
    return Lamb(groups, lr=0.02, implementation=implementation, **settings)


def train(lamb: Lamb, steps: range, *, keep_gradients: bool = False) -> list[torch.Tensor]:
    """Step with fixed gradients; returns the weights."""
    params = [param for group in lamb.param_groups for param in group["params"]]
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in params:
            grad = torch.randn(param.shape, generator=generator).to(param)
            if keep_gradients and param.grad is not None:
                param.grad.copy_(grad)
            else:
                param.grad = grad
        lamb.step()
    return params


@pytest.mark.parametrize("settings", [{}, {"use_nvlamb": True}, {"bias_correction": False}], ids=str)
@pytest.mark.parametrize("keep_gradients", [False, True])
def test_steps_equal_the_reference_in_float64(settings: dict[str, bool], keep_gradients: bool) -> None:
    kernels, reference = (
        make_lamb("triton", torch.float32, **settings),
        make_lamb("reference", torch.float64, **settings),
    )
    found = train(kernels, range(4), keep_gradients=keep_gradients)
    for ours, theirs in zip(found, train(reference, range(4)), strict=True):
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error <= 1e-6, f"shape {tuple(ours.shape)}: relative error {error:.1e}"
    for ours, theirs in zip(kernels.state.values(), reference.state.values(), strict=True):
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(ours[name].double(), theirs[name], rtol=1e-6, atol=1e-7)


def test_its_state_is_that_of_the_other_paths() -> None:
    kernels, foreach = make_lamb("triton", torch.float32), make_lamb("foreach", torch.float32)
    train(kernels, range(2))
    foreach.load_state_dict(copy.deepcopy(kernels.state_dict()))  # torch's would share the moments
    for ours, theirs in zip(kernels.param_groups, foreach.param_groups, strict=True):
        for param, other in zip(ours["params"], theirs["params"], strict=True):
            other.data.copy_(param.data)
    for ours, theirs in zip(train(kernels, range(2, 4)), train(foreach, range(2, 4)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)  # rounded in another order


def test_zero_weights_and_zero_updates_take_no_trust_ratio() -> None:
    weights = [torch.zeros(3, device=DEVICE), torch.ones(3, device=DEVICE)]
    grads = [torch.tensor([1.0, -2.0, 0.5], device=DEVICE), torch.zeros(3, device=DEVICE)]
    for weight, grad in zip(weights, grads, strict=True):
        weight.grad = grad
    Lamb(weights, lr=0.1, eps=1e-30, weight_decay=0.01, implementation="triton").step()
    torch.testing.assert_close(weights[0], -0.1 * grads[0].sign())
    torch.testing.assert_close(weights[1], torch.full_like(weights[1], 0.9))  # decay alone, scaled to the weights


def test_non_finite_gradients_show_in_the_weights() -> None:
    weight = torch.ones(2, device=DEVICE)
    weight.grad = torch.tensor([float("inf"), 1.0], device=DEVICE)
    Lamb([weight], implementation="triton").step()
    assert not torch.isfinite(weight).all()


def test_tensors_that_do_not_fit_are_updated_too() -> None:
    weight = torch.ones(4, dtype=torch.float64, device=DEVICE)
    weight.grad = torch.ones_like(weight)
    Lamb([weight], lr=0.1, implementation="triton").step()
    twin = torch.ones(4, dtype=torch.float64, device=DEVICE)
    twin.grad = torch.ones_like(twin)
    Lamb([twin], lr=0.1).step()
    assert torch.equal(weight, twin)


def test_two_runs_are_bitwise_equal() -> None:
    first, second = (train(make_lamb("triton", torch.float32), range(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
