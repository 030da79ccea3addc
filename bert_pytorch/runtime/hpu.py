"""Habana's Gaudi (HPU): all that this package asks of `habana_frameworks`, by calls that docs.habana.ai describes.

Gaudi's software gathers operators into graphs and compiles a graph once for each shape that it sees.  In lazy mode it
gathers until `mark_step`; in eager mode `torch.compile` does the gathering.  Which of both, it reads from the
environment when it is loaded, so that it is loaded here and nowhere else.

None of this has run on a Gaudi so far: tests drive it through a stand-in of the documented calls.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

from bert_pytorch.errors import ConfigError
from bert_pytorch.runtime.ranks import Ranks

M = TypeVar("M", bound=nn.Module)

LIBRARY = "habana_frameworks.torch"
LAZY_MODE = "PT_HPU_LAZY_MODE"
"""1 for lazy mode, 0 for eager mode (Habana: Runtime Environment Variables)."""
DYNAMIC_SHAPES = "PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES"
"""1 lets the software put shapes that vary into buckets instead of compiling each (likewise; off by default)."""
COMPILER = "hpu_backend"
"""Name of Habana's backend of `torch.compile`."""


def is_installed() -> bool:
    """Whether `habana_frameworks` can be found; nothing is loaded to learn it."""
    return LIBRARY in sys.modules or importlib.util.find_spec("habana_frameworks") is not None


def load(*, compiles: bool, dynamic_shapes: bool) -> None:
    """Choose the mode and load Habana's library; what the environment says already is kept.

    Args:
        compiles: whether parts of the model go through `torch.compile`, which wants eager mode.
        dynamic_shapes: whether shapes vary.

    Raises:
        ConfigError: if the library is missing or cannot be loaded, or the environment asks for the other mode.
    """
    if not is_installed():
        problem = "it needs Habana's PyTorch, whose habana_frameworks is not installed: use Habana's container, or cpu."
        raise ConfigError("--device hpu", [problem])
    said = os.environ.get(LAZY_MODE)
    if compiles and said not in (None, "0"):
        raise ConfigError("--compile", [f"on Gaudi it wants eager mode, found {LAZY_MODE}={said}: unset one of them."])
    # torch itself loads the library beforehand in eager mode only, and then it is too late for the other.
    eager = compiles or LIBRARY in sys.modules
    os.environ.setdefault(LAZY_MODE, "0" if eager else "1")
    if dynamic_shapes:
        os.environ.setdefault(DYNAMIC_SHAPES, "1")
    try:
        importlib.import_module(f"{LIBRARY}.core")
    except Exception as error:  # drivers and versions that do not fit, each in an exception of its own
        mode, other = ("lazy", "0") if is_lazy() else ("eager", "1")
        problem = f"{LIBRARY}.core cannot be loaded in {mode} mode ({error}); {LAZY_MODE}={other} asks for the other."
        raise ConfigError("--device hpu", [problem]) from error


def is_lazy() -> bool:
    """Whether operators are gathered until `mark_step`; asked once the library is loaded."""
    return os.environ.get(LAZY_MODE) != "0"


def count() -> int:
    """Return how many HPUs this process may use; none of them is taken for it."""
    hpu = _hpu()
    return int(hpu.device_count()) if hpu.is_available() else 0


def describe() -> str:
    """Say in a few words how the device computes."""
    mode = "lazy mode" if is_lazy() else "eager mode"
    shapes = "shapes in buckets" if os.environ.get(DYNAMIC_SHAPES) == "1" else "each shape compiled"
    return f"{mode} ({LAZY_MODE}), {shapes} ({DYNAMIC_SHAPES})"


def join(ranks: Ranks) -> None:
    """Give each rank of a machine an HPU of its own, before one is taken, and make the backend `hccl` known."""
    hccl = importlib.import_module(f"{LIBRARY}.distributed.hccl")
    hccl.initialize_distributed_hpu(world_size=ranks.size, rank=ranks.rank, local_rank=ranks.local_rank)


def mark_step() -> None:
    """Hand over the operators gathered so far, in lazy mode; the host does not wait for them."""
    if is_lazy():
        importlib.import_module(f"{LIBRARY}.core").mark_step()


def synchronize() -> None:
    """Wait until the device has done everything it was given."""
    mark_step()
    _hpu().synchronize()


def device_name() -> str:
    """Return what the device calls itself, GAUDI2; takes the device."""
    return str(_hpu().get_device_name())


def peak_memory() -> int:
    """Return the most bytes that tensors took so far."""
    return int(_hpu().max_memory_allocated())


def forget_peak_memory() -> None:
    """Count `peak_memory` from now on."""
    _hpu().reset_peak_memory_stats()


def replayed(module: M) -> M:
    """Return a module whose forward pass becomes an HPU graph for each shape of its arguments, which are tensors.

    Graphs exist in lazy mode; in eager mode the module is returned as it is.
    """
    wrapped: M = _hpu().wrap_in_hpu_graph(module) if is_lazy() else module
    return wrapped


def fused_optimizer(name: str) -> Callable[..., torch.optim.Optimizer] | None:
    """Return one of Habana's fused optimizers by its name; None where this version has none."""
    try:
        return getattr(importlib.import_module(f"{LIBRARY}.hpex.optimizers"), name, None)
    except ImportError:
        return None


def fused_clip(parameters: Iterable[nn.Parameter], max_norm: float) -> Callable[[], Any] | None:
    """Return what scales the gradients of parameters down to an L2 norm, by max_norm / (norm + 1e-6).

    None where this version has no FusedClipNorm.
    """
    kept = list(parameters)
    try:
        clipping = importlib.import_module(f"{LIBRARY}.hpex.normalization").FusedClipNorm(kept, max_norm)
    except (ImportError, AttributeError):
        return None
    return lambda: clipping.clip_norm(kept)


def _hpu() -> Any:
    return importlib.import_module(f"{LIBRARY}.hpu")
