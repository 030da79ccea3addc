"""Linear layers whose backward pass adds where it multiplies.

Where a tensor goes both through a linear layer and around it (a residual), autograd makes two gradients and adds them:
three passes over memory.  `linear_beside` hands the tensor on beside the product, so that its backward pass sees both
gradients and lets the matrix product add (BLAS's beta = 1).  Bias gradients are matrix-vector products, which run at
twice the speed of torch's column sums.
"""
# T rows, I in_features, O out_features

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.kernels.choice import takes_cpu_kernels


class _LinearBeside(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight)
        ctx.set_materialize_grads(False)
        return F.linear(hidden, weight, bias), hidden.view_as(hidden)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, beside: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if grad is None:
            return beside, None, None
        hidden, weight = ctx.saved_tensors
        grad_hidden = None
        if ctx.needs_input_grad[0]:
            # In place: nobody reads the gradient that came around the layer after this node has.
            grad_hidden = grad @ weight if beside is None else beside.addmm_(grad, weight)
        return grad_hidden, *weight_gradients(grad, hidden, ctx.needs_input_grad[1:])


def weight_gradients(
    grad: Tensor, hidden: Tensor, needed: tuple[bool, ...] = (True, True)
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of weight (O, I) and bias (O,) from those of the output (T, O) and the input (T, I)."""
    grad_weight = grad.mT @ hidden if needed[0] else None
    grad_bias = torch.mv(grad.mT, grad.new_ones(len(grad))) if needed[1] else None
    return grad_weight, grad_bias


def linear_beside(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a linear layer's output, and its input for use beside it: the residual must be taken from there.

    Args:
        hidden: (T, I).
        weight: (O, I).
        bias: (O,) or None.

    Returns:
        `hidden @ weight.T + bias`, (T, O), and `hidden`.
    """
    if takes_cpu_kernels(hidden):
        return _LinearBeside.apply(hidden, weight, bias)
    return F.linear(hidden, weight, bias), hidden


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `hidden @ weight.T + bias`; shapes as in `linear_beside`."""
    if takes_cpu_kernels(hidden):
        return _LinearBeside.apply(hidden, weight, bias)[0]
    return F.linear(hidden, weight, bias)
