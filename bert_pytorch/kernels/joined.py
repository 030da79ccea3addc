"""Queries, keys and values that one matrix product gives, and their gradients as one matrix again.

Torch copies the gradients of a tensor's parts together: for BERT-large on an H100 2.6 % of a step.  A kernel that
writes them side by side from the start spares that.
"""
# T tokens, P parts, W columns of a part

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


def split(joined: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Return the parts of (T, P W), P views (T, W) side by side, as `chunk` does."""
    if not joined.requires_grad:
        return joined.chunk(parts, dim=1)
    views: tuple[Tensor, ...] = _Split.apply(joined, parts)
    return views


class _Split(Function):
    @staticmethod
    def forward(ctx: Any, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.width = joined.shape, joined.shape[1] // parts
        return joined.chunk(parts, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        given = [grad for grad in grads if grad is not None]
        if not given:
            return None, None
        zeros = given[0].new_zeros(ctx.shape[0], ctx.width) if len(given) < len(grads) else given[0]
        return together([zeros if grad is None else grad for grad in grads]), None


def together(parts: Sequence[Tensor]) -> Tensor:
    """Lay matrices (T, W) side by side, (T, P W); those that lie so already are not copied."""
    first = parts[0]
    rows, width = first.shape
    whole = width * len(parts)
    lie_so = all(
        part.shape == first.shape
        and part.dtype == first.dtype
        and part.stride() == (whole, 1)
        and part.data_ptr() == first.data_ptr() + number * width * first.element_size()
        and part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        for number, part in enumerate(parts)
    )
    return first.as_strided((rows, whole), (whole, 1)) if lie_so else torch.cat(list(parts), dim=1)


def room_side_by_side(query: Tensor, key: Tensor) -> tuple[Tensor, ...]:
    """Return room for the gradients of query (Q, N, D), key and value (T, N, D), those of one projection side by side.

    Queries that only some tokens ask are projected by themselves.
    """
    count, heads, size = key.shape
    if len(query) == count:
        return key.new_empty(count, 3, heads, size).unbind(1)
    return query.new_empty(query.shape), *key.new_empty(count, 2, heads, size).unbind(1)
