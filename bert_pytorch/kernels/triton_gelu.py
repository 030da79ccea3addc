"""Bias + GELU, plain and gated: one pass over memory each way, the bias's gradient in the backward one.

torch adds the gradient's rows up in a pass of its own, which reads (T, I) once more.
"""
# T rows (tokens), I columns of the output, W columns of the input: I, or 2 I where gated

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS, COLUMNS = 8, 256
"""A tile: 16 entries a thread of 4 warps."""
BAND = 128
"""Rows that one program of the backward pass adds up."""
SQRT_HALF = tl.constexpr(0.7071067811865476)
SQRT_2_OVER_PI = tl.constexpr(0.7978845608028654)
INVERSE_SQRT_2_PI = tl.constexpr(0.3989422804014327)
CUBIC = tl.constexpr(0.044715)


def bias_gelu(x: Tensor, bias: Tensor | None, *, tanh: bool = False) -> Tensor:
    """Compute what `bias_gelu_reference` does."""
    result: Tensor = _BiasGelu.apply(x, bias, tanh, False)
    return result


def geglu(x: Tensor, bias: Tensor | None, *, tanh: bool = False) -> Tensor:
    """Compute what `geglu_reference` does."""
    result: Tensor = _BiasGelu.apply(x, bias, tanh, True)
    return result


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, tanh: bool, gated: bool) -> Tensor:
        x = x.contiguous()
        rows, width = x.shape[0], x.shape[1] // 2 if gated else x.shape[1]
        result = x.new_empty(rows, width)
        if rows:
            _forward[(triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS))](
                x, bias, result, rows, width,
                HAS_BIAS=bias is not None, TANH=tanh, GATED=gated, ROWS=ROWS, COLUMNS=COLUMNS,
            )  # fmt: skip
        ctx.save_for_backward(x, bias)
        ctx.tanh, ctx.gated = tanh, gated
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, bias = ctx.saved_tensors
        rows, width = grad.shape
        grad_x = torch.empty_like(x)
        bands = triton.cdiv(rows, BAND)
        partial_sums = (
            torch.empty(bands, x.shape[1], dtype=torch.float32, device=x.device) if bias is not None else None
        )
        if rows:
            _backward[(bands, triton.cdiv(width, COLUMNS))](
                grad.contiguous(), x, bias, grad_x, partial_sums, rows, width,
                HAS_BIAS=bias is not None, TANH=ctx.tanh, GATED=ctx.gated, BAND=BAND, ROWS=ROWS, COLUMNS=COLUMNS,
            )  # fmt: skip
        return grad_x, None if partial_sums is None else partial_sums.sum(0).to(bias.dtype), None, None


@triton.jit
def _gelu(x, TANH: tl.constexpr):
    """Return gelu(x) and its derivative."""
    if TANH:
        # (1 + tanh(z)) / 2 = sigmoid(2 z)
        share = 1.0 / (1.0 + tl.exp((x + x * x * x * CUBIC) * SQRT_2_OVER_PI * -2.0))
        slope = share * (1.0 - share) * (1.0 + x * x * CUBIC * 3.0) * SQRT_2_OVER_PI * 2.0
    else:
        share = 0.5 * (1.0 + tl.erf(x * SQRT_HALF))
        slope = tl.exp(x * x * -0.5) * INVERSE_SQRT_2_PI
    return x * share, share + x * slope


@triton.jit
def _load(x, bias, at, column, inside, in_width, HAS_BIAS: tl.constexpr):
    """Load a tile of x + bias, float32; `column` counts in x's own width."""
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + column, in_width, 0.0).to(tl.float32)[None, :]
    return value


@triton.jit(do_not_specialize=["rows"])
def _forward(
    x, bias, result, rows, width,
    HAS_BIAS: tl.constexpr, TANH: tl.constexpr, GATED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_row, in_width = row < rows, column < width
    inside = in_row[:, None] & in_width[None, :]
    stride = 2 * width if GATED else width
    at = row.to(tl.int64)[:, None] * stride + column[None, :]
    value, _ = _gelu(_load(x, bias, at, column, inside, in_width, HAS_BIAS), TANH)
    if GATED:
        value *= _load(x, bias, at + width, column + width, inside, in_width, HAS_BIAS)
    result_at = row.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(result + result_at, value.to(result.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["rows"])
def _backward(
    grad, x, bias, grad_x, partial_sums, rows, width,
    HAS_BIAS: tl.constexpr, TANH: tl.constexpr, GATED: tl.constexpr,
    BAND: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    band = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_width = column < width
    stride = 2 * width if GATED else width
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    linear_sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(0, BAND, ROWS, num_stages=2):
        row = band * BAND + first + tl.arange(0, ROWS)
        in_row = row < rows
        inside = in_row[:, None] & in_width[None, :]
        at = row.to(tl.int64)[:, None] * stride + column[None, :]
        grad_at = row.to(tl.int64)[:, None] * width + column[None, :]
        upper = tl.load(grad + grad_at, inside, 0.0).to(tl.float32)
        value, slope = _gelu(_load(x, bias, at, column, inside, in_width, HAS_BIAS), TANH)
        if GATED:
            linear = _load(x, bias, at + width, column + width, inside, in_width, HAS_BIAS)
            grad_linear = upper * value
            tl.store(grad_x + at + width, grad_linear.to(grad_x.dtype.element_ty), inside)
            linear_sums += grad_linear
            upper *= linear
        grad_value = upper * slope
        tl.store(grad_x + at, grad_value.to(grad_x.dtype.element_ty), inside)
        sums += grad_value
    if HAS_BIAS:
        to = partial_sums + band * stride + column
        tl.store(to, tl.sum(sums, 0), in_width)
        if GATED:
            tl.store(to + width, tl.sum(linear_sums, 0), in_width)
