"""Residual + dropout + bias + LayerNorm in one pass over memory forward and one backward (Ba et al. 2016 for the norm).

Without fusion torch reads and writes the (T, H) tensors five times forward and keeps a mask.  Here dropout's mask is a
function of a seed and computed again; what is kept for the backward pass is the sum, two numbers a row and the seed.
"""
# T rows (tokens), H columns, P programs of the backward pass

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from bert_pytorch.kernels.triton_random import STEPS, draw_seed, dropout_threshold, kept_entries

TILE = 1024
"""Entries of a tile: narrow matrices are taken several rows at a time."""
PROGRAMS = 528
"""P: four for each of an H100's 132 multiprocessors.  Fixed, so that sums are the same bits on every device."""


def residual_dropout_norm(
    x: Tensor,
    residual: Tensor | None,
    bias: Tensor | None,
    weight: Tensor,
    shift: Tensor | None,
    dropout_p: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Compute what `residual_dropout_norm_reference` does, drawing other dropout masks.

    `dropout_p` is rounded to a multiple of 1 / 65,536.  Gradients once; not of the gradients.
    """
    tensors = (x, residual, bias, weight, shift)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    normalised, total = _ResidualDropoutNorm.apply(*tensors, dropout_p, eps, keep)
    return normalised, total


class _ResidualDropoutNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        bias: Tensor | None,
        weight: Tensor,
        shift: Tensor | None,
        dropout_p: float,
        eps: float,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x = x.contiguous()
        residual = None if residual is None else residual.contiguous()
        rows, width = x.shape
        normalised = torch.empty_like(x)
        total = torch.empty_like(x, dtype=x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype))
        mean, inverse_deviation = torch.empty(2, rows, dtype=torch.float32, device=x.device)
        threshold = dropout_threshold(dropout_p)
        seed = draw_seed(x.device) if threshold else None
        tile = _tile(width)
        if rows:
            _forward[(triton.cdiv(rows, tile["ROWS"]),)](
                x, residual, bias, weight, shift, normalised, total, mean, inverse_deviation, seed,
                rows, width, eps, threshold, STEPS / (STEPS - threshold),
                HAS_RESIDUAL=residual is not None, HAS_BIAS=bias is not None, HAS_SHIFT=shift is not None,
                HAS_DROPOUT=threshold > 0, **tile,
            )  # fmt: skip
        if keep:
            ctx.save_for_backward(total, mean, inverse_deviation, weight, seed)
            ctx.threshold = threshold
            ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (x, residual, bias, weight, shift)]
        return normalised, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_normalised: Tensor | None, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
        total, mean, inverse_deviation, weight, seed = ctx.saved_tensors
        x_dtype, residual_dtype, bias_dtype, weight_dtype, shift_dtype = ctx.dtypes
        rows, width = total.shape
        if grad_normalised is None:
            grad_normalised = torch.zeros_like(total, dtype=x_dtype)
        grad_x = torch.empty_like(total, dtype=x_dtype)
        separate = residual_dtype is not None and (ctx.threshold > 0 or residual_dtype != x_dtype)
        grad_residual = torch.empty_like(total, dtype=residual_dtype) if separate else None
        tile = _tile(width)
        programs = min(PROGRAMS, triton.cdiv(rows, tile["ROWS"]))
        partial_sums = torch.empty(programs, 3, width, dtype=torch.float32, device=total.device)
        if rows:
            _backward[(programs,)](
                grad_normalised.contiguous(), None if grad_total is None else grad_total.contiguous(),
                total, mean, inverse_deviation, weight, seed, grad_x, grad_residual, partial_sums,
                rows, width, ctx.threshold, STEPS / (STEPS - ctx.threshold),
                HAS_GRAD_TOTAL=grad_total is not None, HAS_GRAD_RESIDUAL=separate, HAS_DROPOUT=ctx.threshold > 0,
                **tile,
            )  # fmt: skip
        if residual_dtype is not None and not separate:
            grad_residual = grad_x
        sums = partial_sums.sum(0)
        grad_weight, grad_shift, grad_bias = (
            None if dtype is None else row.to(dtype)
            for row, dtype in zip(sums, (weight_dtype, shift_dtype, bias_dtype), strict=True)
        )
        return grad_x, grad_residual, grad_bias, grad_weight, grad_shift, None, None, None


def _tile(width: int) -> dict[str, int]:
    columns = max(8, triton.next_power_of_2(width))
    return {"ROWS": max(1, TILE // columns), "COLUMNS": columns, "num_warps": 4 if columns <= 2048 else 8}


@triton.jit(do_not_specialize=["rows", "threshold"])
def _forward(
    x, residual, bias, weight, shift, normalised, total, mean, inverse_deviation, seed,
    rows, width, eps, threshold, scale,
    HAS_RESIDUAL: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_SHIFT: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    in_row, in_width = row < rows, column < width
    inside = in_row[:, None] & in_width[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]

    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + column, in_width, 0.0).to(tl.float32)[None, :]
    if HAS_DROPOUT:
        value = tl.where(kept_entries(tl.load(seed), row, threshold, ROWS, COLUMNS), value * scale, 0.0)
    if HAS_RESIDUAL:
        value += tl.load(residual + at, inside, 0.0).to(tl.float32)
    stored = value.to(total.dtype.element_ty)
    tl.store(total + at, stored, inside)

    value = tl.where(inside, stored.to(tl.float32), 0.0)  # statistics of what is kept, so that backward agrees
    average = tl.sum(value, 1) / width
    centred = tl.where(in_width[None, :], value - average[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / width + eps)
    tl.store(mean + row, average, in_row)
    tl.store(inverse_deviation + row, inverse, in_row)
    result = centred * inverse[:, None] * tl.load(weight + column, in_width, 0.0).to(tl.float32)[None, :]
    if HAS_SHIFT:
        result += tl.load(shift + column, in_width, 0.0).to(tl.float32)[None, :]
    tl.store(normalised + at, result.to(normalised.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["rows", "threshold"])
def _backward(
    grad_normalised, grad_total, total, mean, inverse_deviation, weight, seed, grad_x, grad_residual, partial_sums,
    rows, width, threshold, scale,
    HAS_GRAD_TOTAL: tl.constexpr, HAS_GRAD_RESIDUAL: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    column = tl.arange(0, COLUMNS)
    in_width = column < width
    gamma = tl.load(weight + column, in_width, 0.0).to(tl.float32)[None, :]
    weight_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    shift_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    bias_sum = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in tl.range(program * ROWS, rows, programs * ROWS, num_stages=2):
        row = first + tl.arange(0, ROWS)
        in_row = row < rows
        inside = in_row[:, None] & in_width[None, :]
        at = row.to(tl.int64)[:, None] * width + column[None, :]
        grad = tl.load(grad_normalised + at, inside, 0.0).to(tl.float32)
        average = tl.load(mean + row, in_row, 0.0)
        inverse = tl.load(inverse_deviation + row, in_row, 0.0)
        value = (tl.load(total + at, inside, 0.0).to(tl.float32) - average[:, None]) * inverse[:, None]
        value = tl.where(inside, value, 0.0)  # x̂
        weight_sum += grad * value
        shift_sum += grad
        grad *= gamma
        along_one, along_value = tl.sum(grad, 1) / width, tl.sum(grad * value, 1) / width
        grad = (grad - along_one[:, None] - value * along_value[:, None]) * inverse[:, None]  # Ba et al., of the sum
        if HAS_GRAD_TOTAL:
            grad += tl.load(grad_total + at, inside, 0.0).to(tl.float32)
        if HAS_GRAD_RESIDUAL:
            tl.store(grad_residual + at, grad.to(grad_residual.dtype.element_ty), inside)
        if HAS_DROPOUT:
            grad = tl.where(kept_entries(tl.load(seed), row, threshold, ROWS, COLUMNS), grad * scale, 0.0)
        tl.store(grad_x + at, grad.to(grad_x.dtype.element_ty), inside)
        bias_sum += tl.where(inside, grad, 0.0)
    sums = partial_sums + program * 3 * width + column
    tl.store(sums, tl.sum(weight_sum, 0), in_width)
    tl.store(sums + width, tl.sum(shift_sum, 0), in_width)
    tl.store(sums + 2 * width, tl.sum(bias_sum, 0), in_width)
