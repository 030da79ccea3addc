"""The masked-LM loss with bounded memory on any device: scores of some rows at a time, never those of all.

`cross_entropy` is the CPU's for fewer rows.  This one asks for no value of the device and computes products in the
precision that it is given, softmax and sums in at least float32.  Gradients come with the loss; the backward pass
multiplies them in place.
"""
# M masked tokens, H hidden, V rows of the decoder

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from bert_pytorch.records import IGNORED_LABEL

ROWS_AT_ONCE = 2048
"""At 30,528 tokens 0.6 GB for scores and probabilities, and products large enough for a GPU."""


def chunked_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    rows_at_once: int = ROWS_AT_ONCE,
    sum_dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Sum -log softmax(hidden @ weight.T + bias)[label] over the rows with a label.

    Args:
        hidden: (M, H), floating; M may be 0.
        weight: (V, H) of the same dtype.
        bias: (V,); -inf takes an entry out of the softmax.
        labels: int64 (M,) in [0, V), or `IGNORED_LABEL`.
        rows_at_once: rows whose scores exist at the same time.
        sum_dtype: in which they are added up, one that the device has.

    Returns:
        (), natural-log units, at least float32.
    """
    return _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, rows_at_once, sum_dtype)


class _ChunkedCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        rows_at_once: int,
        sum_dtype: torch.dtype,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        loss = hidden.new_zeros((), dtype=sum_dtype)
        grad_hidden = torch.empty_like(hidden)
        grad_weight, grad_bias = (torch.zeros_like(tensor, dtype=wide) for tensor in (weight, bias))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, len(hidden), rows_at_once):
                rows = slice(start, start + rows_at_once)
                scores = F.linear(hidden[rows], weight, bias.to(hidden.dtype)).to(wide)
                logs, at = torch.log_softmax(scores, 1, out=scores), labels[rows].clamp(min=0).unsqueeze(1)
                labelled = labels[rows].ne(IGNORED_LABEL).to(wide).unsqueeze(1)
                loss -= logs.gather(1, at).mul_(labelled).sum(dtype=sum_dtype)
                slopes = logs.exp_().scatter_add_(1, at, -labelled).mul_(labelled)  # p - 1 at the label; 0 without one
                grad_bias += slopes.sum(0)
                slopes = slopes.to(hidden.dtype)
                grad_hidden[rows] = slopes @ weight
                if slopes.dtype == wide:
                    grad_weight.addmm_(slopes.mT, hidden[rows])
                else:
                    grad_weight += slopes.mT @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype))
        return loss.to(wide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(saved.mul_(grad) for saved in ctx.saved_tensors), None, None, None  # in place: the decoder's is large
