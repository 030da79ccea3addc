"""Norms of float32 tensors against float64."""

import pytest
import torch

from bert_pytorch.optim.norms import global_norm, tensor_norms

SHAPES = [(30528, 128), (1024, 4096), (3, 5, 7), (768,), (1,), ()]


@pytest.fixture(scope="module")
def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * 0.02 for shape in SHAPES]


def test_norm_of_each_tensor_is_right_to_float32_rounding(tensors):
    wanted = torch.stack([tensor.double().square().sum().sqrt() for tensor in tensors])
    norms = tensor_norms(tensors)
    assert norms.dtype == torch.float32
    torch.testing.assert_close(norms.double(), wanted, rtol=1e-7, atol=0)


def test_global_norm_is_that_of_one_long_vector(tensors):
    wanted = torch.cat([tensor.double().flatten() for tensor in tensors]).square().sum().sqrt()
    torch.testing.assert_close(global_norm(tensors), wanted, rtol=1e-7, atol=0)


def test_non_finite_values_show():
    assert torch.isinf(global_norm([torch.ones(3), torch.tensor([1.0, float("inf")])]))
    assert torch.isnan(global_norm([torch.ones(3), torch.tensor([[1.0, float("nan")]])]))
