"""Attention for sequences of a few tiles, on packed tensors.

Online softmax and its backward pass as in FlashAttention-2 (Dao 2023, algorithms 1 and 2).  Where every sequence fits
in one tile, the backward pass computes the scores once instead of twice and nothing but the inputs is kept for it.  No
dropout.  Float32 is for tests: its tiles do not fit in registers (the compiler spills 33 KB of the forward kernel).
"""
# T packed tokens, Q queries, B sequences, N heads, D head size

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from bert_pytorch.kernels.attention import Bias, Sequences
from bert_pytorch.kernels.joined import room_side_by_side

LARGEST_TILE, LARGEST_FLOAT32_TILE = 128, 64
"""Rows of a tile; sequences that are no longer are computed in one piece."""
LOG2_E = tl.constexpr(1.4426950408889634)
HIDDEN_SCORE = tl.constexpr(-1e30)
"""Finite, so that a tile in which a row sees nothing makes no NaN; what it adds is multiplied by 0 later."""


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
            _forward[(len(sequences.cu_keys) - 1, heads, triton.cdiv(sequences.max_queries, block))](
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
            _backward_one_tile[(batch, heads)](query, key, value, grad, *grads, **shared)
        else:
            products = torch.empty_like(sums)
            _products[(triton.cdiv(count, 64), heads)](output, grad, products, count, heads, SIZE=size, BLOCK=64)
            moving = {"count": count, "MOVING": min(64, block), "num_stages": 2}
            for kernel, longest, results in (
                (_backward_keys, sequences.max_keys, grads[1:]),
                (_backward_queries, sequences.max_queries, grads[:1]),
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


@triton.jit
def _sequence(edges, sequence):
    """Return where a sequence begins, int64, and how long it is."""
    start = tl.load(edges + sequence)
    return start.to(tl.int64), tl.load(edges + sequence + 1) - start


@triton.jit
def _load_rows(pointer, stride, row, length, SIZE: tl.constexpr):
    """Load rows of one head, (rows, SIZE); 0 outside the sequence."""
    at = row.to(tl.int64)[:, None] * stride + tl.arange(0, SIZE)[None, :]
    return tl.load(pointer + at, (row < length)[:, None], 0.0)


@triton.jit
def _store_rows(pointer, stride, row, length, value, SIZE: tl.constexpr):
    at = row.to(tl.int64)[:, None] * stride + tl.arange(0, SIZE)[None, :]
    tl.store(pointer + at, value.to(pointer.dtype.element_ty), (row < length)[:, None])


@triton.jit
def _load_slope(slopes, head, HAS_SLOPES: tl.constexpr):
    slope = 0.0
    if HAS_SLOPES:
        slope = tl.load(slopes + head) * LOG2_E
    return slope


@triton.jit
def _scores(
    left, right, left_place, right_place, seen, slope, window,
    SCALE: tl.constexpr, PRECISION: tl.constexpr, HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """Return scores in units of log 2, (left rows, right rows), and which of them count.  Works for q kᵀ and k qᵀ."""
    scores = tl.dot(left, tl.trans(right), input_precision=PRECISION) * (SCALE * LOG2_E)
    distance = tl.abs(left_place[:, None] - right_place[None, :])
    if HAS_SLOPES:
        scores -= slope * distance.to(tl.float32)
    if HAS_WINDOW:
        seen = seen & (distance <= window)
    return scores, seen


@triton.jit
def _others(first, count, window, BLOCK: tl.constexpr, MOVING: tl.constexpr, NEAR: tl.constexpr):
    """Return between which rows those lie that a block from `first` on may meet."""
    begin = first * 0
    end = count
    if NEAR:
        begin = tl.maximum(first - window, 0) // MOVING * MOVING
        end = tl.minimum(first + BLOCK + window, count)
    return begin, end


@triton.jit(do_not_specialize=["count", "window"])
def _forward(
    queries, keys, values, output, sums, cu_queries, cu_keys, positions, slopes, window,
    query_stride, key_stride, value_stride, count, heads,
    SCALE: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_POSITIONS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_SUMS: tl.constexpr,
    BLOCK: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    first = tl.program_id(2) * BLOCK
    query_start, query_count = _sequence(cu_queries, tl.program_id(0))
    key_start, key_count = _sequence(cu_keys, tl.program_id(0))
    if first >= query_count:
        return
    row = first + tl.arange(0, BLOCK)
    query = _load_rows(queries + query_start * query_stride + head * SIZE, query_stride, row, query_count, SIZE)
    keys += key_start * key_stride + head * SIZE
    values += key_start * value_stride + head * SIZE
    place = row
    if HAS_POSITIONS:
        place = tl.load(positions + query_start + row, row < query_count, 0)
    slope = _load_slope(slopes, head, HAS_SLOPES)
    highest = tl.full((BLOCK,), HIDDEN_SCORE, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    mixed = tl.zeros((BLOCK, SIZE), tl.float32)
    begin, end = _others(first, key_count, window, BLOCK, MOVING, HAS_WINDOW and not HAS_POSITIONS)
    for at in range(begin, end, MOVING):
        other = at + tl.arange(0, MOVING)
        key = _load_rows(keys, key_stride, other, key_count, SIZE)
        value = _load_rows(values, value_stride, other, key_count, SIZE)
        seen = (row < query_count)[:, None] & (other < key_count)[None, :]
        scores, seen = _scores(query, key, place, other, seen, slope, window, SCALE, PRECISION, HAS_SLOPES, HAS_WINDOW)
        scores = tl.where(seen, scores, HIDDEN_SCORE)
        higher = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp2(highest - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        highest = higher
    outputs = output + (query_start * heads + head) * SIZE
    _store_rows(outputs, heads * SIZE, row, query_count, mixed / total[:, None], SIZE)
    if HAS_SUMS:
        tl.store(sums + head.to(tl.int64) * count + query_start + row, highest + tl.log2(total), row < query_count)


@triton.jit(do_not_specialize=["window"])
def _backward_one_tile(
    queries, keys, values, grad, grad_query, grad_key, grad_value, cu_queries, cu_keys, positions, slopes, window,
    query_stride, key_stride, value_stride, grad_query_stride, grad_key_stride, heads,
    SCALE: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_POSITIONS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    query_start, query_count = _sequence(cu_queries, tl.program_id(0))
    key_start, key_count = _sequence(cu_keys, tl.program_id(0))
    if key_count == 0:
        return
    row = tl.arange(0, BLOCK)
    query = _load_rows(queries + query_start * query_stride + head * SIZE, query_stride, row, query_count, SIZE)
    key = _load_rows(keys + key_start * key_stride + head * SIZE, key_stride, row, key_count, SIZE)
    value = _load_rows(values + key_start * value_stride + head * SIZE, value_stride, row, key_count, SIZE)
    upper = _load_rows(grad + (query_start * heads + head) * SIZE, heads * SIZE, row, query_count, SIZE)
    grad_query += query_start * grad_query_stride + head * SIZE
    grad_key += key_start * grad_key_stride + head * SIZE
    grad_value += key_start * grad_key_stride + head * SIZE
    place = row
    if HAS_POSITIONS:
        place = tl.load(positions + query_start + row, row < query_count, 0)
    slope = _load_slope(slopes, head, HAS_SLOPES)
    seen = (row < query_count)[:, None] & (row < key_count)[None, :]
    scores, seen = _scores(query, key, place, row, seen, slope, window, SCALE, PRECISION, HAS_SLOPES, HAS_WINDOW)
    scores = tl.where(seen, scores, HIDDEN_SCORE)
    weights = tl.where(seen, tl.exp2(scores - tl.max(scores, 1)[:, None]), 0.0)
    total = tl.sum(weights, 1)
    weights = weights / tl.where(total > 0, total, 1.0)[:, None]  # rows outside the sequence see nothing
    grad_weights = tl.dot(upper, tl.trans(value), input_precision=PRECISION)
    grad_scores = weights * (grad_weights - tl.sum(weights * grad_weights, 1)[:, None]) * SCALE
    grad_scores = grad_scores.to(query.dtype)
    values_part = tl.dot(tl.trans(weights.to(upper.dtype)), upper, input_precision=PRECISION)
    _store_rows(grad_value, grad_key_stride, row, key_count, values_part, SIZE)
    keys_part = tl.dot(tl.trans(grad_scores), query, input_precision=PRECISION)
    _store_rows(grad_key, grad_key_stride, row, key_count, keys_part, SIZE)
    queries_part = tl.dot(grad_scores, key, input_precision=PRECISION)
    _store_rows(grad_query, grad_query_stride, row, query_count, queries_part, SIZE)


@triton.jit(do_not_specialize=["count"])
def _products(output, grad, products, count, heads, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Sum output times its gradient over each head: what every score's gradient is reduced by."""
    head = tl.program_id(1)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = _load_rows(output + head * SIZE, heads * SIZE, row, count, SIZE).to(tl.float32)
    upper = _load_rows(grad + head * SIZE, heads * SIZE, row, count, SIZE).to(tl.float32)
    tl.store(products + head.to(tl.int64) * count + row, tl.sum(values * upper, 1), row < count)


@triton.jit(do_not_specialize=["count", "window"])
def _backward_keys(
    queries, keys, values, grad, sums, products, grad_key, grad_value,
    cu_queries, cu_keys, positions, slopes, window,
    query_stride, key_stride, value_stride, grad_query_stride, grad_key_stride, count, heads,
    SCALE: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_POSITIONS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr, BLOCK: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Each program gives the gradients of one block of keys and values."""
    head = tl.program_id(1)
    first = tl.program_id(2) * BLOCK
    query_start, query_count = _sequence(cu_queries, tl.program_id(0))
    key_start, key_count = _sequence(cu_keys, tl.program_id(0))
    if first >= key_count:
        return
    row = first + tl.arange(0, BLOCK)
    key = _load_rows(keys + key_start * key_stride + head * SIZE, key_stride, row, key_count, SIZE)
    value = _load_rows(values + key_start * value_stride + head * SIZE, value_stride, row, key_count, SIZE)
    queries += query_start * query_stride + head * SIZE
    grad += (query_start * heads + head) * SIZE
    sums += head.to(tl.int64) * count + query_start
    products += head.to(tl.int64) * count + query_start
    slope = _load_slope(slopes, head, HAS_SLOPES)
    keys_part = tl.zeros((BLOCK, SIZE), tl.float32)
    values_part = tl.zeros((BLOCK, SIZE), tl.float32)
    begin, end = _others(first, query_count, window, BLOCK, MOVING, HAS_WINDOW and not HAS_POSITIONS)
    for at in range(begin, end, MOVING):
        other = at + tl.arange(0, MOVING)
        query = _load_rows(queries, query_stride, other, query_count, SIZE)
        upper = _load_rows(grad, heads * SIZE, other, query_count, SIZE)
        place = other
        if HAS_POSITIONS:
            place = tl.load(positions + query_start + other, other < query_count, 0)
        seen = (row < key_count)[:, None] & (other < query_count)[None, :]
        scores, seen = _scores(key, query, row, place, seen, slope, window, SCALE, PRECISION, HAS_SLOPES, HAS_WINDOW)
        sum_of_row = tl.load(sums + other, other < query_count, 0.0)
        weights = tl.where(seen, tl.exp2(scores - sum_of_row[None, :]), 0.0)
        values_part += tl.dot(weights.to(upper.dtype), upper, input_precision=PRECISION)
        grad_weights = tl.dot(value, tl.trans(upper), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - tl.load(products + other, other < query_count, 0.0)[None, :])
        keys_part += tl.dot(grad_scores.to(query.dtype), query, input_precision=PRECISION)
    key_at = key_start * grad_key_stride + head * SIZE
    _store_rows(grad_key + key_at, grad_key_stride, row, key_count, keys_part * SCALE, SIZE)
    _store_rows(grad_value + key_at, grad_key_stride, row, key_count, values_part, SIZE)


@triton.jit(do_not_specialize=["count", "window"])
def _backward_queries(
    queries, keys, values, grad, sums, products, grad_query,
    cu_queries, cu_keys, positions, slopes, window,
    query_stride, key_stride, value_stride, grad_query_stride, grad_key_stride, count, heads,
    SCALE: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_POSITIONS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr, BLOCK: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Each program gives the gradient of one block of queries."""
    head = tl.program_id(1)
    first = tl.program_id(2) * BLOCK
    query_start, query_count = _sequence(cu_queries, tl.program_id(0))
    key_start, key_count = _sequence(cu_keys, tl.program_id(0))
    if first >= query_count:
        return
    row = first + tl.arange(0, BLOCK)
    query = _load_rows(queries + query_start * query_stride + head * SIZE, query_stride, row, query_count, SIZE)
    upper = _load_rows(grad + (query_start * heads + head) * SIZE, heads * SIZE, row, query_count, SIZE)
    keys += key_start * key_stride + head * SIZE
    values += key_start * value_stride + head * SIZE
    sum_of_row = tl.load(sums + head.to(tl.int64) * count + query_start + row, row < query_count, 0.0)
    product = tl.load(products + head.to(tl.int64) * count + query_start + row, row < query_count, 0.0)
    place = row
    if HAS_POSITIONS:
        place = tl.load(positions + query_start + row, row < query_count, 0)
    slope = _load_slope(slopes, head, HAS_SLOPES)
    queries_part = tl.zeros((BLOCK, SIZE), tl.float32)
    begin, end = _others(first, key_count, window, BLOCK, MOVING, HAS_WINDOW and not HAS_POSITIONS)
    for at in range(begin, end, MOVING):
        other = at + tl.arange(0, MOVING)
        key = _load_rows(keys, key_stride, other, key_count, SIZE)
        value = _load_rows(values, value_stride, other, key_count, SIZE)
        seen = (row < query_count)[:, None] & (other < key_count)[None, :]
        scores, seen = _scores(query, key, place, other, seen, slope, window, SCALE, PRECISION, HAS_SLOPES, HAS_WINDOW)
        weights = tl.where(seen, tl.exp2(scores - sum_of_row[:, None]), 0.0)
        grad_weights = tl.dot(upper, tl.trans(value), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - product[:, None])
        queries_part += tl.dot(grad_scores.to(key.dtype), key, input_precision=PRECISION)
    query_at = query_start * grad_query_stride + head * SIZE
    _store_rows(grad_query + query_at, grad_query_stride, row, query_count, queries_part * SCALE, SIZE)
