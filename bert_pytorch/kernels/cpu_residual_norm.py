"""LayerNorm(residual + dropout(hidden)): the end of both blocks of a post-norm layer, in as few passes as torch allows.

Against three operators and their autograd: no tensor of dropped entries, no sum of its own, and the random numbers of
`cpu_dropout`.
"""
# T rows, H hidden

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.kernels.cpu import takes_cpu_kernels
from bert_pytorch.kernels.cpu_dropout import KeepMask


def residual_norm_reference(
    hidden: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, p: float
) -> Tensor:
    """Compute the same as `residual_norm` by torch's operators."""
    dropped = F.dropout(hidden, p) if p else hidden
    return F.layer_norm(residual + dropped, hidden.shape[-1:], weight, bias, eps)


class _ResidualNorm(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, p: float
    ) -> Tensor:
        ctx.mask = mask = KeepMask(hidden.shape, p) if p else None
        if mask is None:
            summed = residual + hidden
        else:
            summed = torch.addcmul(residual, hidden, mask.kept(hidden.dtype), value=mask.scale)
        normed, mean, rstd = torch.native_layer_norm(summed, hidden.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(summed, mean, rstd, weight, bias)
        return normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        summed, mean, rstd, weight, bias = ctx.saved_tensors
        needed = [True, ctx.needs_input_grad[2], bias is not None and ctx.needs_input_grad[3]]
        grad_summed, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
            grad, summed, summed.shape[-1:], mean, rstd, weight, bias, needed
        )
        mask = ctx.mask
        grad_hidden = grad_summed if mask is None else mask.kept(grad.dtype).mul_(grad_summed).mul_(mask.scale)
        return grad_hidden, grad_summed, grad_weight, grad_bias, None, None


def residual_norm(
    hidden: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, eps: float, p: float
) -> Tensor:
    """Return LayerNorm(residual + dropout(hidden)).

    Args:
        hidden: (T, H), the output of a block.
        residual: (T, H), its input.
        weight: (H,), of the LayerNorm.
        bias: (H,) or None, of the LayerNorm.
        eps: added to the variance.
        p: probability of dropping an entry of `hidden`; 0 outside training.
    """
    if takes_cpu_kernels(hidden):
        return _ResidualNorm.apply(hidden, residual, weight, bias, eps, p)
    return residual_norm_reference(hidden, residual, weight, bias, eps, p)
