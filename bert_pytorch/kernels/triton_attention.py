"""Attention for sequences of a few tiles, on the packed (T, 3, N, D) tensor as the projection left it.

Online softmax and its backward pass as in FlashAttention-2 (Dao 2023, algorithms 1 and 2), with two differences that
short sequences pay for: the gradients of queries, keys and values are written into one (T, 3, N, D) tensor, so that
nothing is joined afterwards; and where every sequence fits in one tile the backward pass computes the scores once
instead of twice, and keeps neither output nor softmax sums.  No dropout.
"""
# T packed tokens, B sequences, N heads, D head size

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from bert_pytorch.kernels.attention import Bias, Sequences

LARGEST_TILE, LARGEST_FLOAT32_TILE = 128, 64
"""Queries of a tile; sequences that are no longer are computed in one piece.  Float32 ones take twice the registers."""
LOG2_E = 1.4426950408889634
HIDDEN_SCORE = tl.constexpr(-1e30)
"""Finite, so that a tile in which a row sees nothing makes no NaN; what it adds is multiplied by 0 later."""


def attention(qkv: Tensor, sequences: Sequences, bias: Bias) -> Tensor:
    """Compute what `attention_reference` does; D is a power of 2 of at least 16."""
    result: Tensor = _PackedAttention.apply(qkv, *sequences, *bias)
    return result


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cu_seqlens: Tensor, max_seqlen: int, alibi_slopes: Tensor | None, window: int | None
    ) -> Tensor:
        qkv = qkv.contiguous()
        tokens, _, heads, size = qkv.shape
        output = qkv.new_empty(tokens, heads, size)
        block = _block(max_seqlen, qkv.dtype)
        one_tile = max_seqlen <= block
        sums = None if one_tile else torch.empty(heads, tokens, dtype=torch.float32, device=qkv.device)
        if tokens:
            _forward[(len(cu_seqlens) - 1, heads, triton.cdiv(max_seqlen, block))](
                qkv, cu_seqlens, alibi_slopes, output, sums, tokens, heads, size**-0.5 * LOG2_E, window or 0,
                **_constants(qkv, alibi_slopes, window), HAS_SUMS=sums is not None, BLOCK=block,
                MOVING=min(64, block), num_warps=8 if block == 128 else 4, num_stages=2,
            )  # fmt: skip
        ctx.save_for_backward(qkv, cu_seqlens, alibi_slopes, sums, None if one_tile else output)
        ctx.max_seqlen, ctx.window = max_seqlen, window
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        qkv, cu_seqlens, alibi_slopes, sums, output = ctx.saved_tensors
        tokens, _, heads, size = qkv.shape
        grad = grad.contiguous()
        grad_qkv = torch.empty_like(qkv)
        count, block = len(cu_seqlens) - 1, _block(ctx.max_seqlen, qkv.dtype)
        constants = _constants(qkv, alibi_slopes, ctx.window)
        scales = (size**-0.5 * LOG2_E, size**-0.5, ctx.window or 0)
        if tokens and sums is None:
            _backward_one_tile[(count, heads)](
                qkv, cu_seqlens, alibi_slopes, grad, grad_qkv, heads, *scales,
                **constants, BLOCK=block, num_warps=8 if block == 128 else 4,
            )  # fmt: skip
        elif tokens:
            products = torch.empty_like(sums)
            _products[(triton.cdiv(tokens, 64), heads)](output, grad, products, tokens, heads, SIZE=size, BLOCK=64)
            _backward[(count, heads, triton.cdiv(ctx.max_seqlen, block))](
                qkv, cu_seqlens, alibi_slopes, grad, sums, products, grad_qkv, tokens, heads, *scales,
                **constants, BLOCK=block, MOVING=min(64, block), num_warps=8 if block == 128 else 4, num_stages=2,
            )  # fmt: skip
        return grad_qkv, None, None, None, None


def _block(max_seqlen: int, dtype: torch.dtype) -> int:
    largest = LARGEST_FLOAT32_TILE if dtype == torch.float32 else LARGEST_TILE
    return min(largest, max(16, triton.next_power_of_2(max_seqlen)))


def _constants(qkv: Tensor, alibi_slopes: Tensor | None, window: int | None) -> dict[str, Any]:
    precision = "ieee" if qkv.dtype == torch.float32 else None  # the default would be tf32
    has = {"HAS_ALIBI": alibi_slopes is not None, "HAS_WINDOW": window is not None}
    return {"SIZE": qkv.shape[-1], "PRECISION": precision, **has}


@triton.jit
def _sequence(cu_seqlens, sequence):
    """Return where a sequence begins, int64, and how long it is."""
    start = tl.load(cu_seqlens + sequence)
    return start.to(tl.int64), tl.load(cu_seqlens + sequence + 1) - start


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
def _scores(
    left, right, left_row, right_row, length, slope, window, scale,
    PRECISION: tl.constexpr, HAS_ALIBI: tl.constexpr, HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """Return scores in units of log 2, (left rows, right rows), and which of them count.  Works for q kᵀ and k qᵀ."""
    scores = tl.dot(left, tl.trans(right), input_precision=PRECISION) * scale
    distance = tl.abs(left_row[:, None] - right_row[None, :])
    if HAS_ALIBI:
        scores -= slope * distance.to(tl.float32)
    seen = (left_row < length)[:, None] & (right_row < length)[None, :]
    if HAS_WINDOW:
        seen = seen & (distance <= window)
    return scores, seen


@triton.jit
def _range(first, length, window, BLOCK: tl.constexpr, MOVING: tl.constexpr, HAS_WINDOW: tl.constexpr):
    """Return where the rows begin and end that a block from `first` on sees."""
    begin = first * 0
    end = length
    if HAS_WINDOW:
        begin = tl.maximum(first - window, 0) // MOVING * MOVING
        end = tl.minimum(first + BLOCK + window, length)
    return begin, end


@triton.jit
def _slope(alibi_slopes, head, HAS_ALIBI: tl.constexpr):
    slope = 0.0
    if HAS_ALIBI:
        slope = tl.load(alibi_slopes + head) * 1.4426950408889634
    return slope


@triton.jit(do_not_specialize=["tokens", "window"])
def _forward(
    qkv, cu_seqlens, alibi_slopes, output, sums, tokens, heads, scale, window,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_ALIBI: tl.constexpr, HAS_WINDOW: tl.constexpr,
    HAS_SUMS: tl.constexpr, BLOCK: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    first = tl.program_id(2) * BLOCK
    start, length = _sequence(cu_seqlens, tl.program_id(0))
    if first >= length:
        return
    stride = 3 * heads * SIZE
    queries = qkv + start * stride + head * SIZE
    keys, values = queries + heads * SIZE, queries + 2 * heads * SIZE
    slope = _slope(alibi_slopes, head, HAS_ALIBI)
    query_row = first + tl.arange(0, BLOCK)
    query = _load_rows(queries, stride, query_row, length, SIZE)
    highest = tl.full((BLOCK,), HIDDEN_SCORE, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    mixed = tl.zeros((BLOCK, SIZE), tl.float32)
    begin, end = _range(first, length, window, BLOCK, MOVING, HAS_WINDOW)
    for at in range(begin, end, MOVING):
        key_row = at + tl.arange(0, MOVING)
        key = _load_rows(keys, stride, key_row, length, SIZE)
        value = _load_rows(values, stride, key_row, length, SIZE)
        scores, seen = _scores(
            query, key, query_row, key_row, length, slope, window, scale, PRECISION, HAS_ALIBI, HAS_WINDOW
        )
        scores = tl.where(seen, scores, HIDDEN_SCORE)
        higher = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp2(highest - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        mixed = mixed * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
        highest = higher
    _store_rows(output + (start * heads + head) * SIZE, heads * SIZE, query_row, length, mixed / total[:, None], SIZE)
    if HAS_SUMS:
        tl.store(sums + head * tokens + start + query_row, highest + tl.log2(total), query_row < length)


@triton.jit(do_not_specialize=["window"])
def _backward_one_tile(
    qkv, cu_seqlens, alibi_slopes, grad, grad_qkv, heads, scale, grad_scale, window,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_ALIBI: tl.constexpr, HAS_WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)
    start, length = _sequence(cu_seqlens, tl.program_id(0))
    if length == 0:
        return
    stride = 3 * heads * SIZE
    queries = qkv + start * stride + head * SIZE
    keys, values = queries + heads * SIZE, queries + 2 * heads * SIZE
    row = tl.arange(0, BLOCK)
    query = _load_rows(queries, stride, row, length, SIZE)
    key = _load_rows(keys, stride, row, length, SIZE)
    value = _load_rows(values, stride, row, length, SIZE)
    upper = _load_rows(grad + (start * heads + head) * SIZE, heads * SIZE, row, length, SIZE)
    slope = _slope(alibi_slopes, head, HAS_ALIBI)
    scores, seen = _scores(query, key, row, row, length, slope, window, scale, PRECISION, HAS_ALIBI, HAS_WINDOW)
    scores = tl.where(seen, scores, HIDDEN_SCORE)
    weights = tl.where(seen, tl.exp2(scores - tl.max(scores, 1)[:, None]), 0.0)
    total = tl.sum(weights, 1)
    weights = weights / tl.where(total > 0, total, 1.0)[:, None]  # rows outside the sequence see nothing
    grad_weights = tl.dot(upper, tl.trans(value), input_precision=PRECISION)
    grad_scores = weights * (grad_weights - tl.sum(weights * grad_weights, 1)[:, None]) * grad_scale
    grad_scores = grad_scores.to(query.dtype)
    grad_queries = grad_qkv + start * stride + head * SIZE
    grad_keys, grad_values = grad_queries + heads * SIZE, grad_queries + 2 * heads * SIZE
    grad_value = tl.dot(tl.trans(weights.to(upper.dtype)), upper, input_precision=PRECISION)
    _store_rows(grad_values, stride, row, length, grad_value, SIZE)
    grad_key = tl.dot(tl.trans(grad_scores), query, input_precision=PRECISION)
    _store_rows(grad_keys, stride, row, length, grad_key, SIZE)
    _store_rows(grad_queries, stride, row, length, tl.dot(grad_scores, key, input_precision=PRECISION), SIZE)


@triton.jit(do_not_specialize=["tokens"])
def _products(output, grad, products, tokens, heads, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Sum output times its gradient over each head: what every score's gradient is reduced by."""
    head = tl.program_id(1)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = _load_rows(output + head * SIZE, heads * SIZE, row, tokens, SIZE).to(tl.float32)
    upper = _load_rows(grad + head * SIZE, heads * SIZE, row, tokens, SIZE).to(tl.float32)
    tl.store(products + head.to(tl.int64) * tokens + row, tl.sum(values * upper, 1), row < tokens)


@triton.jit(do_not_specialize=["tokens", "window"])
def _backward(
    qkv, cu_seqlens, alibi_slopes, grad, sums, products, grad_qkv, tokens, heads, scale, grad_scale, window,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_ALIBI: tl.constexpr, HAS_WINDOW: tl.constexpr,
    BLOCK: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Each program gives the gradients of one block of keys and values, then of the queries of the same block."""
    head = tl.program_id(1)
    first = tl.program_id(2) * BLOCK
    start, length = _sequence(cu_seqlens, tl.program_id(0))
    if first >= length:
        return
    stride = 3 * heads * SIZE
    queries = qkv + start * stride + head * SIZE
    keys, values = queries + heads * SIZE, queries + 2 * heads * SIZE
    grad_queries = grad_qkv + start * stride + head * SIZE
    uppers = grad + (start * heads + head) * SIZE
    sums += head * tokens + start
    products += head * tokens + start
    slope = _slope(alibi_slopes, head, HAS_ALIBI)
    row = first + tl.arange(0, BLOCK)
    begin, end = _range(first, length, window, BLOCK, MOVING, HAS_WINDOW)

    own_key = _load_rows(keys, stride, row, length, SIZE)
    own_value = _load_rows(values, stride, row, length, SIZE)
    grad_key = tl.zeros((BLOCK, SIZE), tl.float32)
    grad_value = tl.zeros((BLOCK, SIZE), tl.float32)
    for at in range(begin, end, MOVING):
        other = at + tl.arange(0, MOVING)
        query = _load_rows(queries, stride, other, length, SIZE)
        upper = _load_rows(uppers, heads * SIZE, other, length, SIZE)
        scores, seen = _scores(
            own_key, query, row, other, length, slope, window, scale, PRECISION, HAS_ALIBI, HAS_WINDOW
        )
        weights = tl.where(seen, tl.exp2(scores - tl.load(sums + other, other < length, 0.0)[None, :]), 0.0)
        grad_value += tl.dot(weights.to(upper.dtype), upper, input_precision=PRECISION)
        grad_weights = tl.dot(own_value, tl.trans(upper), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - tl.load(products + other, other < length, 0.0)[None, :])
        grad_key += tl.dot(grad_scores.to(query.dtype), query, input_precision=PRECISION)
    _store_rows(grad_queries + heads * SIZE, stride, row, length, grad_key * grad_scale, SIZE)
    _store_rows(grad_queries + 2 * heads * SIZE, stride, row, length, grad_value, SIZE)

    own_query = _load_rows(queries, stride, row, length, SIZE)
    own_upper = _load_rows(uppers, heads * SIZE, row, length, SIZE)
    own_sums = tl.load(sums + row, row < length, 0.0)
    own_products = tl.load(products + row, row < length, 0.0)
    grad_query = tl.zeros((BLOCK, SIZE), tl.float32)
    for at in range(begin, end, MOVING):
        other = at + tl.arange(0, MOVING)
        key = _load_rows(keys, stride, other, length, SIZE)
        value = _load_rows(values, stride, other, length, SIZE)
        scores, seen = _scores(
            own_query, key, row, other, length, slope, window, scale, PRECISION, HAS_ALIBI, HAS_WINDOW
        )
        weights = tl.where(seen, tl.exp2(scores - own_sums[:, None]), 0.0)
        grad_weights = tl.dot(own_upper, tl.trans(value), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - own_products[:, None])
        grad_query += tl.dot(grad_scores.to(key.dtype), key, input_precision=PRECISION)
    _store_rows(grad_queries, stride, row, length, grad_query * grad_scale, SIZE)
