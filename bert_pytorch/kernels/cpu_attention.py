"""Attention within each sequence of a packed batch on a CPU, by matrix products on views of the packed projections.

Torch's fused CPU kernel works in blocks, for sequences too long for the cache.  Short ones fit: there plain products
and a softmax take two thirds to three quarters of its time, forward and backward (`python -m benchmarks.attention`).
"""
# Q queries and K keys of all sequences, N heads, D head size; q and k of one sequence

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.kernels.joined import room_side_by_side

LONGEST = 192
"""Mean length up to which it is the faster one; at 254 both take the same time."""


class _ShortAttention(Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, query_counts: Sequence[int], key_counts: Sequence[int]
    ) -> Tensor:
        ctx.counts = query_counts, key_counts
        scale, none = query.shape[-1] ** -0.5, query.new_empty(())
        mixed = torch.empty(query.shape, dtype=query.dtype)  # contiguous, which the queries need not be
        kept = []
        for q, k, v, out in zip(*_by_sequence(ctx.counts, query, key, value, mixed), strict=True):
            scores = torch.baddbmm(none, q, k.mT, beta=0, alpha=scale)  # (N, q, k)
            probabilities = torch.softmax(scores, -1, out=scores)
            out.copy_(torch.bmm(probabilities, v))
            kept.append(probabilities)
        ctx.save_for_backward(query, key, value, *kept)
        return mixed.flatten(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        scale, none = query.shape[-1] ** -0.5, query.new_empty(())
        grads = room_side_by_side(query, key)
        sequences = zip(
            *_by_sequence(ctx.counts, query, key, value, grad.view(query.shape)),
            *_by_sequence(ctx.counts, *grads),
            kept,
            strict=True,
        )
        for q, k, v, grad_out, grad_q, grad_k, grad_v, probabilities in sequences:
            grad_v.copy_(torch.bmm(probabilities.mT, grad_out))
            grad_scores = torch._softmax_backward_data(
                torch.bmm(grad_out, v.mT), probabilities, -1, probabilities.dtype
            )
            grad_q.copy_(torch.baddbmm(none, grad_scores, k, beta=0, alpha=scale))
            grad_k.copy_(torch.baddbmm(none, grad_scores.mT, q, beta=0, alpha=scale))
        return *grads, None, None


def _by_sequence(
    counts: tuple[Sequence[int], Sequence[int]], query: Tensor, key: Tensor, value: Tensor, out: Tensor | None = None
) -> list[list[Tensor]]:
    """Return (N, q or k, D) views of each sequence, of each tensor in turn; `out` lies as the queries do."""
    tensors = [(query, counts[0]), (key, counts[1]), (value, counts[1])] + ([] if out is None else [(out, counts[0])])
    return [[part.transpose(0, 1) for part in tensor.split(list(sizes))] for tensor, sizes in tensors]


def short_attention(
    query: Tensor, key: Tensor, value: Tensor, query_counts: Sequence[int], key_counts: Sequence[int]
) -> Tensor:
    """Attend within each sequence, every query to every key, without dropout.

    Args:
        query: (Q, N, D).
        key: (K, N, D).
        value: (K, N, D).
        query_counts: queries of each sequence, adding up to Q; 0 is fine.
        key_counts: keys of each sequence, adding up to K.

    Returns:
        (Q, N * D); the backward pass keeps N * q * k probabilities of each sequence.
    """
    mixed: Tensor = _ShortAttention.apply(query, key, value, query_counts, key_counts)
    return mixed
