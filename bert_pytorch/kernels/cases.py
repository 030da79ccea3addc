"""One step of each fused kernel, forward and backward, by Triton and as torch's own layers do it: what is measured."""
# T tokens, H hidden, I intermediate

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.kernels.registry import TRITON, KernelName, triton_function


class Shape(NamedTuple):
    """What the element-wise kernels of a layer are given."""

    tokens: int
    hidden: int
    intermediate: int
    dropout_p: float
    dtype: torch.dtype
    """Of what linear layers return."""
    device: torch.device


def one_step(name: KernelName, way: str, shape: Shape) -> Callable[[], object]:
    """Return what computes one step of a kernel and its gradients.

    The bias is added and its gradient summed on both sides, by torch as a linear layer's backward pass does it.

    Args:
        name: of an element-wise kernel, so not `lamb`.
        way: `triton` or `torch`.
        shape: of the layer.
    """
    make = {"residual_norm": _residual_norm, "bias_gelu": _bias_gelu, "geglu": _geglu}[name]
    function, inputs = make(way, shape)
    leaves = [value.requires_grad_() for value in inputs]

    def forward() -> Tensor:
        with torch.autocast(shape.device.type, shape.dtype, enabled=shape.dtype != torch.float32):
            return function(*leaves)

    grad = torch.randn_like(forward())

    def step() -> object:
        return torch.autograd.grad(forward(), leaves, grad)

    return step


Case = tuple[Callable[..., Tensor], list[Tensor]]


def _residual_norm(way: str, shape: Shape) -> Case:
    x, residual = (_normal(shape, shape.tokens, shape.hidden) for _ in range(2))
    vectors = [torch.randn(shape.hidden, device=shape.device) for _ in range(3)]
    if way == TRITON:
        fused = triton_function("residual_norm")
        return lambda *inputs: fused(*inputs, shape.dropout_p, 1e-12)[0], [x, residual, *vectors]

    def plain(x: Tensor, residual: Tensor, bias: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
        dropped = F.dropout(_add_bias(x, bias), shape.dropout_p) if shape.dropout_p else _add_bias(x, bias)
        return F.layer_norm(residual + dropped, (shape.hidden,), weight, shift, 1e-12)

    return plain, [x, residual, *vectors]


def _bias_gelu(way: str, shape: Shape) -> Case:
    inputs = [_normal(shape, shape.tokens, shape.intermediate), torch.randn(shape.intermediate, device=shape.device)]
    if way == TRITON:
        return triton_function("bias_gelu"), inputs
    return lambda x, bias: F.gelu(_add_bias(x, bias)), inputs


def _geglu(way: str, shape: Shape) -> Case:
    inputs = [_normal(shape, shape.tokens, 2 * shape.intermediate)]
    if way == TRITON:
        fused = triton_function("geglu")
        return lambda x: fused(x, None), inputs

    def plain(x: Tensor) -> Tensor:
        gate, linear = x.chunk(2, dim=1)
        return F.gelu(gate) * linear

    return plain, inputs


def _normal(shape: Shape, *size: int) -> Tensor:
    return torch.randn(size, device=shape.device, dtype=shape.dtype)


class _AddedInTheProduct(torch.autograd.Function):
    """A bias as cuBLAS adds it, for nothing; its gradient is a sum over the rows, in a pass of its own."""

    @staticmethod
    def forward(ctx: object, x: Tensor, bias: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor]:
        return grad, grad.sum(0).float()


def _add_bias(x: Tensor, bias: Tensor) -> Tensor:
    added: Tensor = _AddedInTheProduct.apply(x, bias)
    return added
