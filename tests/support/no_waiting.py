"""Finds, on a CPU, what makes the host wait for a device: asking a tensor for its values, or for a size they decide."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_READING = {
    torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__bool__,
    torch.Tensor.__int__, torch.Tensor.__float__, torch.Tensor.__index__, torch.Tensor.__contains__,
}  # fmt: skip
_aten = torch.ops.aten
_SIZED_BY_VALUES = {
    _aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten._unique, _aten._unique2, _aten.unique_dim,
    _aten.unique_consecutive, _aten.equal, _aten.is_nonzero, _aten.bincount,
    _aten.repeat_interleave,
}  # fmt: skip


class WaitError(AssertionError):
    """Something would have waited."""


class _Functions(TorchFunctionMode):
    """`tolist` and `numpy` of a CPU tensor never reach the dispatcher."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READING:
            raise WaitError(f"{func.__name__} waits for the device")
        if func in (torch.tensor, torch.as_tensor) and (kwargs or {}).get("device") is not None:
            raise WaitError(f"{func.__name__} copies from memory that is not pinned, and waits for it")
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Sees the backward pass as well."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        by_mask = func.overloadpacket in (_aten.index, _aten.index_put, _aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if func.overloadpacket in _SIZED_BY_VALUES or by_mask:
            raise WaitError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Refuse, within, what would wait for a device if tensors were on one.

    Raises:
        WaitError: where it would.
    """
    with _Functions(), _Operators():
        yield


@contextlib.contextmanager
def on_the_host() -> Iterator[None]:
    """Allow it again, within `no_waiting`, for tensors that are on the host in any case."""
    with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
        yield
