"""Tensors that say they are on a Gaudi and lie on the host, with what a Gaudi cannot do refused.

docs.habana.ai/en/latest/PyTorch/Reference/PyTorch_Support_Matrix.html: the device's name in PyTorch is `hpu`; Float64
is not supported.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

from tests.support.habana.calls import record

HPU = torch.device("hpu", 0)


class HpuTensor(torch.Tensor):
    """A host tensor under another name; what is computed from it is one too."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return HPU


class _OnHpu(TorchFunctionMode):
    """Sees every call of torch's: those that ask for the device `hpu` give tensors there."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to:
            return _moved(*args, **kwargs)
        if func is torch.Tensor.cpu:
            return _to_host(args[0])
        if func is torch.Tensor.numpy and isinstance(args[0], HpuTensor):
            raise TypeError("can't convert an hpu tensor to numpy: copy it to the host first.")
        if func is torch._has_compatible_shallow_copy_type:  # a module that is moved asks: may it keep the parameter?
            return isinstance(args[0], HpuTensor) == isinstance(args[1], HpuTensor)
        if func is torch.Tensor.backward:
            record("backward")
        if func == torch.Tensor.grad.__get__:  # type: ignore[attr-defined]
            return _on_hpu(func(*args, **kwargs)) if isinstance(args[0], HpuTensor) else func(*args, **kwargs)
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type == "hpu":
            return _on_hpu(func(*args, **{**kwargs, "device": "cpu"}))
        if torch.is_grad_enabled():  # a backward pass is C++'s, where all of them are plain
            _refuse_mixture(func, args, kwargs)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            if isinstance(tensor, HpuTensor) and tensor.dtype == torch.float64:
                raise TypeError(f"{func}: a Gaudi has no float64")
        return result


_known = contextlib.ExitStack()


def make_known(compiler: str | None) -> None:
    """Make the device known to torch, in this thread.

    Args:
        compiler: the one backend of `torch.compile` that takes its tensors: docs.habana.ai/en/latest/PyTorch/
            PyTorch_Gaudi_Theory_of_Operations.html, in eager mode; None in lazy mode, where none does.
    """

    def compile_nothing(function: Callable[..., Any], *, backend: str = "inductor", **how: Any) -> Callable[..., Any]:
        if backend != compiler:
            raise RuntimeError(f"torch.compile for tensors on hpu: found backend {backend}, wanted {compiler}")
        record(f"torch.compile({backend})")

        def compiled(*args: Any, **kwargs: Any) -> Any:
            record("compiled")
            return function(*args, **kwargs)

        return compiled

    _known.enter_context(_OnHpu())
    _known.enter_context(mock.patch.object(torch, "compile", compile_nothing))


def make_unknown() -> None:
    """Undo it."""
    _known.close()


def _moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    copy = kwargs.pop("copy", False)
    if args and isinstance(args[0], torch.Tensor):
        args, kwargs = (), {"device": args[0].device, "dtype": args[0].dtype}
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    wanted = tensor.dtype if dtype is None else dtype
    there = tensor.device if device is None else device
    if there.type == "hpu" and wanted == torch.float64:
        raise TypeError("a Gaudi has no float64")
    if there.type == tensor.device.type:
        return tensor if wanted == tensor.dtype and not copy else _plain_to(tensor, wanted)
    host = _plain_to(tensor.as_subclass(torch.Tensor), wanted)
    return host.as_subclass(HpuTensor) if there.type == "hpu" else host


def _plain_to(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.clone() if tensor.dtype == dtype else tensor.to(dtype)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.as_subclass(torch.Tensor).clone() if isinstance(tensor, HpuTensor) else tensor


def _on_hpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
        raise TypeError("a Gaudi has no float64")
    return value.as_subclass(HpuTensor) if isinstance(value, torch.Tensor) else value


def _refuse_mixture(func: Callable[..., Any], args: Any, kwargs: Any) -> None:
    tensors = list(_tensors((args, list(kwargs.values()))))
    if not any(isinstance(tensor, HpuTensor) for tensor in tensors):
        return
    if any(not isinstance(tensor, HpuTensor) and tensor.dim() > 0 for tensor in tensors):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found hpu and cpu")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
