"""Attention for sequences of a few tiles, on packed tensors.

Online softmax and its backward pass as in FlashAttention-2 (Dao 2023, algorithms 1 and 2).  Where every sequence fits
in one tile, the backward pass computes the scores once instead of twice and nothing but the inputs is kept for it.  No
dropout.  Float32 is for tests: its tiles do not fit in registers (the compiler spills 33 KB of the forward kernel).
"""
# T packed tokens, Q queries, B sequences, N heads, D head size

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from bert_pytorch.kernels import triton_attention_kernels as kernels
from bert_pytorch.kernels.attention import Bias, Sequences
from bert_pytorch.kernels.joined import room_side_by_side

LARGEST_TILE, LARGEST_FLOAT32_TILE = 128, 64
"""Rows of a tile; sequences that are no longer are computed in one piece."""


def attention(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, bias: Bias) -> Tensor:
    """Compute what `attention_reference` does; D is a power of 2 of at least 16."""
    result: Tensor = _PackedAttention.apply(query, key, value, sequences, bias)
    return result


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, bias: Bias) -> Tensor:
        query, key, value = (_with_dense_heads(tensor) for tensor in (query, key, value))
        count, heads, _ = query.shape
        output = query.new_empty(query.shape)
        block = _block(sequences, query.dtype)
        one_tile = max(sequences.max_queries, sequences.max_keys) <= block
        sums = None if one_tile else torch.empty(heads, count, dtype=torch.float32, device=query.device)
        if count:
            kernels.forward[(len(sequences.cu_keys) - 1, heads, triton.cdiv(sequences.max_queries, block))](
                query, key, value, output, sums, **_where(sequences, bias), **_strides(query, key, value),
                count=count, heads=heads, **_constants(query, sequences, bias), HAS_SUMS=not one_tile,
                BLOCK=block, MOVING=min(64, block), num_warps=8 if block == 128 else 4, num_stages=2,
            )  # fmt: skip
        ctx.save_for_backward(query, key, value, sums, None if one_tile else output, *sequences[:2])
        ctx.sequences, ctx.bias = sequences, bias
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sums, output, _, _ = ctx.saved_tensors
        sequences, bias = ctx.sequences, ctx.bias
        grad = grad.contiguous()
        count, heads, size = query.shape
        grads = room_side_by_side(query, key)
        batch, block = len(sequences.cu_keys) - 1, _block(sequences, query.dtype)
        shared: dict[str, Any] = {
            **_where(sequences, bias), **_strides(query, key, value), "heads": heads,
            "grad_query_stride": grads[0].stride(0), "grad_key_stride": grads[1].stride(0),
            **_constants(query, sequences, bias), "BLOCK": block, "num_warps": 8 if block == 128 else 4,
        }  # fmt: skip
        if not count:
            return *(torch.zeros_like(tensor) for tensor in grads), None, None
        if sums is None:
            kernels.backward_one_tile[(batch, heads)](query, key, value, grad, *grads, **shared)
        else:
            products = torch.empty_like(sums)
            kernels.products[(triton.cdiv(count, 64), heads)](output, grad, products, count, heads, SIZE=size, BLOCK=64)
            moving = {"count": count, "MOVING": min(64, block), "num_stages": 2}
            for kernel, longest, results in (
                (kernels.backward_keys, sequences.max_keys, grads[1:]),
                (kernels.backward_queries, sequences.max_queries, grads[:1]),
            ):
                blocks = triton.cdiv(longest, block)
                kernel[(batch, heads, blocks)](query, key, value, grad, sums, products, *results, **shared, **moving)
        return *grads, None, None


def _with_dense_heads(tensor: Tensor) -> Tensor:
    """Copy unless rows are (N, D) side by side; rows may lie apart, as in a joint projection."""
    return tensor if tensor.stride()[1:] == (tensor.shape[2], 1) else tensor.contiguous()


def _block(sequences: Sequences, dtype: torch.dtype) -> int:
    largest = LARGEST_FLOAT32_TILE if dtype == torch.float32 else LARGEST_TILE
    return min(largest, max(16, triton.next_power_of_2(max(sequences.max_queries, sequences.max_keys))))


def _where(sequences: Sequences, bias: Bias) -> dict[str, Any]:
    return {
        "cu_queries": sequences.cu_queries,
        "cu_keys": sequences.cu_keys,
        "positions": sequences.query_positions,
        "slopes": bias.slopes,
        "window": bias.window or 0,
    }


def _strides(query: Tensor, key: Tensor, value: Tensor) -> dict[str, int]:
    return {"query_stride": query.stride(0), "key_stride": key.stride(0), "value_stride": value.stride(0)}


def _constants(query: Tensor, sequences: Sequences, bias: Bias) -> dict[str, Any]:
    size = query.shape[-1]
    return {
        "SCALE": size**-0.5,
        "SIZE": size,
        "PRECISION": "ieee" if query.dtype == torch.float32 else None,  # the default would be tf32
        "HAS_POSITIONS": sequences.query_positions is not None,
        "HAS_SLOPES": bias.slopes is not None,
        "HAS_WINDOW": bias.window is not None,
    }
