"""LAMB against FusedLAMB's formula in NumPy float64, against torch's Adam, and its two paths against each other."""

import math

import numpy as np
import pytest
import torch

from bert_pytorch.optim.lamb import Lamb

SHAPES = [(7, 5), (3, 4, 2), (11,), (1,)]


def reference_step(param, grad, exp_avg, exp_avg_sq, step, *, lr, betas, eps, decay, bias_correction, nvlamb):
    """One tensor's step, written from the formula in prior_art_nvidia_family.md §1.9 (without its clipping)."""
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * grad
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad * grad
    first = exp_avg / (1 - beta1**step) if bias_correction else exp_avg
    second = exp_avg_sq / (1 - beta2**step) if bias_correction else exp_avg_sq
    update = first / (np.sqrt(second) + eps) + decay * param
    rate = lr
    param_norm, update_norm = math.sqrt((param**2).sum()), math.sqrt((update**2).sum())
    if (nvlamb or decay != 0) and param_norm > 0 and update_norm > 0:
        rate = lr * param_norm / update_norm
    return param - rate * update, exp_avg, exp_avg_sq


def make_tensors(dtype, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def gradients(step, shapes=SHAPES):
    generator = np.random.default_rng([7, step])
    return [generator.standard_normal(shape) * 10.0 ** generator.uniform(-3, 1) for shape in shapes]


@pytest.mark.parametrize("implementation", ["foreach", "reference"])
@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("nvlamb", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-6)])
def test_twenty_steps_equal_the_formula_in_float64(implementation, bias_correction, nvlamb, dtype, tolerance):
    params = make_tensors(dtype)
    groups = [{"params": params[:2], "weight_decay": 0.03}, {"params": params[2:], "weight_decay": 0.0}]
    optimizer = Lamb(
        groups, eps=1e-4, bias_correction=bias_correction, use_nvlamb=nvlamb, implementation=implementation
    )
    expected = [(p.detach().double().numpy().copy(), 0.0, 0.0) for p in params]
    for step in range(1, 21):
        lr = 0.01 * step / 20
        for group in optimizer.param_groups:
            group["lr"] = lr
        for param, grad in zip(params, gradients(step), strict=True):
            param.grad = torch.from_numpy(grad).to(dtype)
        optimizer.step()
        expected = [
            reference_step(
                p, param.grad.double().numpy(), m, v, step, lr=lr, betas=(0.9, 0.999), eps=1e-4,
                decay=0.03 if index < 2 else 0.0, bias_correction=bias_correction, nvlamb=nvlamb,
            )
            for index, ((p, m, v), param) in enumerate(zip(expected, params, strict=True))
        ]  # fmt: skip
    for param, (wanted, _, _) in zip(params, expected, strict=True):
        error = np.abs(param.detach().double().numpy() - wanted).max() / np.abs(wanted).max()
        assert error <= tolerance, f"shape {tuple(param.shape)}: relative error {error:.1e}"


@pytest.mark.parametrize("implementation", ["foreach", "reference"])
def test_trust_ratio_is_exact_for_an_embedding_of_millions_of_float32_weights(implementation):
    # torch's own norm of this tensor is 1e-4 small on a CPU, because it adds 4 million squares one by one.
    generator = torch.Generator().manual_seed(1)
    param = torch.nn.Parameter(torch.randn(4000, 1024, generator=generator) * 0.02)
    param.grad = torch.randn(4000, 1024, generator=generator)
    before = param.detach().double().numpy().copy()
    wanted, _, _ = reference_step(
        before, param.grad.double().numpy(), 0.0, 0.0, 1,
        lr=0.5, betas=(0.9, 0.999), eps=1e-6, decay=0.01, bias_correction=True, nvlamb=False,
    )  # fmt: skip
    Lamb([param], lr=0.5, weight_decay=0.01, implementation=implementation).step()
    assert np.abs(param.detach().double().numpy() - wanted).max() / np.abs(wanted).max() <= 1e-6


def test_fast_path_equals_reference_path():
    fast, slow = make_tensors(torch.float32), make_tensors(torch.float32)
    optimizers = [
        Lamb(fast, lr=0.02, weight_decay=0.05),
        Lamb(slow, lr=0.02, weight_decay=0.05, implementation="reference"),
    ]
    for step in range(1, 31):
        for a, b, grad in zip(fast, slow, gradients(step), strict=True):
            a.grad = torch.from_numpy(grad).float()
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # 30 steps of float32 rounding in another order
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(optimizers[0].state[a][name], optimizers[1].state[b][name])


@pytest.mark.parametrize("implementation", ["foreach", "reference"])
def test_without_weight_decay_it_is_adam(implementation):
    ours, theirs = make_tensors(torch.float64), make_tensors(torch.float64)
    lamb = Lamb(ours, lr=0.01, eps=1e-6, weight_decay=0.0, implementation=implementation)
    adam = torch.optim.Adam(theirs, lr=0.01, eps=1e-6, foreach=False)
    for step in range(1, 11):
        for a, b, grad in zip(ours, theirs, gradients(step), strict=True):
            a.grad, b.grad = torch.from_numpy(grad), torch.from_numpy(grad)
        lamb.step()
        adam.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("implementation", ["foreach", "reference"])
def test_tensor_of_zeros_takes_a_plain_adam_step(implementation):
    param = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    param.grad = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    Lamb([param], lr=0.1, eps=0.0, weight_decay=0.01, implementation=implementation).step()
    torch.testing.assert_close(param.detach(), -0.1 * param.grad.sign())  # m/sqrt(v) of the first step is the sign


@pytest.mark.parametrize("implementation", ["foreach", "reference"])
def test_tensor_whose_update_is_zero_stays(implementation):
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.zeros(3)
    Lamb([param], lr=0.1, weight_decay=0.0, use_nvlamb=True, implementation=implementation).step()
    assert param.tolist() == [1, 1, 1]


@pytest.mark.parametrize("implementation", ["foreach", "reference"])
def test_gradients_are_neither_clipped_nor_overwritten(implementation):
    param = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    param.grad = torch.tensor([300.0, 400.0], dtype=torch.float64)
    optimizer = Lamb([param], implementation=implementation)
    optimizer.step()
    assert param.grad.tolist() == [300.0, 400.0]
    torch.testing.assert_close(optimizer.state[param]["exp_avg"], 0.1 * param.grad)


def test_non_finite_gradients_show_in_the_weights():
    param = torch.nn.Parameter(torch.ones(2))
    param.grad = torch.tensor([float("inf"), 1.0])
    Lamb([param]).step()
    assert not torch.isfinite(param).all()  # as in apex: hiding an overflow is the engine's decision, not LAMB's


def test_mixed_dtypes_in_one_group_are_each_updated():
    params = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
    for param in params:
        param.grad = torch.ones_like(param)
    Lamb(params, lr=0.1).step()
    torch.testing.assert_close(params[0].double(), params[1])


def test_two_runs_are_bitwise_equal():
    results = []
    for _ in range(2):
        params = make_tensors(torch.float32)
        optimizer = Lamb(params, lr=0.02)
        for step in range(1, 11):
            for param, grad in zip(params, gradients(step), strict=True):
                param.grad = torch.from_numpy(grad).float()
            optimizer.step()
        results.append(params)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"lr": -1.0}, {"eps": -1e-6}, {"weight_decay": -0.1}, {"betas": (1.0, 0.9)}, {"betas": (0.9, -0.1)}]
)
def test_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="found"):
        Lamb(make_tensors(torch.float32), **wrong)


def test_sparse_gradient_is_refused():
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="sparse"):
        Lamb(embedding.parameters()).step()
