"""Attention within each sequence of a packed batch on a CPU, by matrix products on views of the packed projections.

Torch's fused CPU kernel works in blocks, for sequences too long for the cache.  Short ones fit: there plain products
and a softmax take two thirds of its time, forward and backward (`python -m benchmarks.attention`), and gradients go
straight to where the projections' gradient needs them.
"""
# S tokens of a sequence, T of all, N heads, D head size

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class _ShortAttention(Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, lengths: Sequence[int]) -> Tensor:
        tokens, _, heads, size = qkv.shape
        scale, none = size**-0.5, qkv.new_empty(())
        mixed = qkv.new_empty(tokens, heads, size)
        kept = []
        for sequence, out in zip(qkv.split(lengths), mixed.split(lengths), strict=True):
            query, key, value = sequence.permute(1, 2, 0, 3).unbind(0)  # (N, S, D) each
            scores = torch.baddbmm(none, query, key.mT, beta=0, alpha=scale)
            probabilities = torch.softmax(scores, -1, out=scores)
            out.transpose(0, 1).copy_(torch.bmm(probabilities, value))
            kept.append(probabilities)
        ctx.save_for_backward(qkv, *kept)
        ctx.lengths = lengths
        return mixed.flatten(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        qkv, *kept = ctx.saved_tensors
        _, _, heads, size = qkv.shape
        scale, none = size**-0.5, qkv.new_empty(())
        grads = torch.empty_like(qkv)
        parts = (tensor.split(ctx.lengths) for tensor in (qkv, grads, grad.unflatten(1, (heads, size))))
        for sequence, into, out, probabilities in zip(*parts, kept, strict=True):
            query, key, value = sequence.permute(1, 2, 0, 3).unbind(0)
            grad_query, grad_key, grad_value = into.permute(1, 2, 0, 3).unbind(0)
            grad_out = out.transpose(0, 1)  # (N, S, D)
            grad_value.copy_(torch.bmm(probabilities.mT, grad_out))
            grad_scores = torch._softmax_backward_data(
                torch.bmm(grad_out, value.mT), probabilities, -1, probabilities.dtype
            )
            grad_query.copy_(torch.baddbmm(none, grad_scores, key, beta=0, alpha=scale))
            grad_key.copy_(torch.baddbmm(none, grad_scores.mT, query, beta=0, alpha=scale))
        return grads, None


def short_attention(qkv: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attend within each sequence, without dropout.

    Args:
        qkv: (T, 3, N, D), queries, keys and values.
        lengths: of the sequences, adding up to T.

    Returns:
        (T, N * D); the backward pass keeps N * S * S probabilities of each sequence.
    """
    return _ShortAttention.apply(qkv, list(lengths))
