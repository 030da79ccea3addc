"""The Triton kernels of attention on packed tensors; `triton_attention.py` starts them.

Each program takes one block of rows of one sequence and head and goes through the rows that it may meet.  Scores are in
units of log 2, so that weights are `exp2`.
"""
# T packed tokens, Q queries, B sequences, N heads, D head size

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
HIDDEN_SCORE = tl.constexpr(-1e30)
"""Finite, so that a tile in which a row sees nothing makes no NaN; what it adds is multiplied by 0 later."""


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
def forward(
    queries, keys, values, output, sums, cu_queries, cu_keys, positions, slopes, window,
    query_stride, key_stride, value_stride, count, heads,
    SCALE: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_POSITIONS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_SUMS: tl.constexpr,
    BLOCK: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Each program gives the output of one block of queries, and the log of its sums if HAS_SUMS."""
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
def backward_one_tile(
    queries, keys, values, grad, grad_query, grad_key, grad_value, cu_queries, cu_keys, positions, slopes, window,
    query_stride, key_stride, value_stride, grad_query_stride, grad_key_stride, heads,
    SCALE: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr, HAS_POSITIONS: tl.constexpr,
    HAS_SLOPES: tl.constexpr, HAS_WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Each program gives all gradients of one sequence and head that fit in a block."""
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
def products(output, grad, products, count, heads, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Sum output times its gradient over each head: what every score's gradient is reduced by."""
    head = tl.program_id(1)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = _load_rows(output + head * SIZE, heads * SIZE, row, count, SIZE).to(tl.float32)
    upper = _load_rows(grad + head * SIZE, heads * SIZE, row, count, SIZE).to(tl.float32)
    tl.store(products + head.to(tl.int64) * count + row, tl.sum(values * upper, 1), row < count)


@triton.jit(do_not_specialize=["count", "window"])
def backward_keys(
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
def backward_queries(
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
