"""The one door to others' attention on packed sequences: torch's `varlen_attn` and the flash-attn package.

Both are FlashAttention kernels for 16-bit numbers on CUDA GPUs of compute capability 8.0 and more.
"""
# T packed tokens, Q queries, N heads, D head size

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from bert_pytorch.kernels.attention import Bias, Sequences


def varlen_problem(*, windows: bool) -> str | None:
    """Return why torch's `varlen_attn` cannot be used, None where it can.

    Args:
        windows: whether some layer sees a window; torch 2.10 has no argument for it.
    """
    function = _import("torch.nn.attention.varlen", "varlen_attn")
    if isinstance(function, str):
        return f"{function}; torch has it from 2.10 on"
    if windows and "window_size" not in inspect.signature(function).parameters:
        return "this torch's has no window_size; torch has it from 2.11 on"
    return None


def flash_attn_problem() -> str | None:
    """Return why the flash-attn package cannot be used, None where it can."""
    function = _import("flash_attn", "flash_attn_varlen_func")
    return f"{function}; pip install flash-attn where a CUDA compiler is" if isinstance(function, str) else None


def varlen(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, window: int | None) -> Tensor:
    """Attend by torch's `varlen_attn`.

    Args:
        query: (Q, N, D), 16-bit.
        key: (T, N, D).
        value: (T, N, D).
        sequences: of the batch.  With a window every token must ask.
        window: tokens further away are not seen; None: all are.

    Returns:
        (Q, N, D).
    """
    # Passed only where needed: torch 2.10 takes a positional is_causal there, later versions keywords.
    limits = {} if window is None else {"window_size": (window, window)}
    attended: Tensor = _loaded("torch.nn.attention.varlen", "varlen_attn")(query, key, value, *sequences[:4], **limits)
    return attended


def flash_attn(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, bias: Bias, dropout_p: float) -> Tensor:
    """Attend by the flash-attn package; arguments as for `varlen`, and ALiBi and dropout."""
    limits = (-1, -1) if bias.window is None else (bias.window, bias.window)
    attended: Tensor = _loaded("flash_attn", "flash_attn_varlen_func")(
        query, key, value, *sequences[:4], dropout_p=dropout_p, window_size=limits, alibi_slopes=bias.slopes
    )
    return attended


def _import(module: str, function: str) -> Callable[..., Any] | str:
    """Return a function, or why it cannot be had."""
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, OSError) as error:  # OSError: built for another CUDA
        return f"{module}.{function} cannot be imported ({error})"
    return found


def _loaded(module: str, function: str) -> Callable[..., Any]:
    found = _import(module, function)
    if isinstance(found, str):
        raise ImportError(found)
    return found
