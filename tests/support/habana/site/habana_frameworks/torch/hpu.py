"""`habana_frameworks.torch.hpu`.

docs.habana.ai/en/latest/PyTorch/Reference/Python_Packages.html: what `torch.hpu` has of `torch.cuda`.
"""

import os
from collections.abc import Callable
from typing import Any

import torch

from tests.support.habana.calls import only_documented, record
from tests.support.habana.device import HpuTensor
from tests.support.no_waiting import no_waiting

__getattr__ = only_documented(__name__)


def is_available() -> bool:
    """Whether there is an HPU (Python_Packages.html)."""
    return device_count() > 0


def device_count() -> int:
    """Return the number of HPUs (Python_Packages.html)."""
    return int(os.environ["STAND_IN_DEVICES"])


def get_device_name() -> str:
    """Return the device's name (Python_Packages.html)."""
    record("get_device_name")
    return "GAUDI2"


def synchronize() -> None:
    """Wait for all kernels of the device (Python_Packages.html)."""
    record("synchronize")


def max_memory_allocated() -> int:
    """Return the peak of memory in bytes (Python_Packages.html, Memory Stats APIs)."""
    record("max_memory_allocated")
    return 3 * 2**30


def reset_peak_memory_stats() -> None:
    """Count the peak from now on (Python_Packages.html, Memory Stats APIs)."""
    record("reset_peak_memory_stats")


def wrap_in_hpu_graph(module: torch.nn.Module) -> torch.nn.Module:
    """Capture the forward pass once for each shape of its tensors, then replay it; in lazy mode, without reading any.

    docs.habana.ai/en/latest/PyTorch/Inference_on_PyTorch/Inference_Using_HPU_Graphs.html
    """
    if os.environ["PT_HPU_LAZY_MODE"] == "0":
        raise RuntimeError("HPU graphs are supported in lazy mode only")
    forward: Callable[..., Any] = module.forward
    seen: set[tuple[tuple[Any, ...], ...]] = set()

    def captured(*tensors: torch.Tensor) -> Any:
        if not all(isinstance(tensor, HpuTensor) for tensor in tensors):
            raise TypeError("a graph is captured for tensors on the device")
        shapes = tuple((*tensor.shape, tensor.dtype) for tensor in tensors)
        record("replay" if shapes in seen else "capture")
        seen.add(shapes)
        with no_waiting():
            return forward(*tensors)

    record("wrap_in_hpu_graph")
    module.forward = captured  # type: ignore[method-assign]
    return module
