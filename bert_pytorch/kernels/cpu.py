"""When the functions of this room take their own forward and backward passes, and when torch's."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

_references = 0


@contextlib.contextmanager
def references_only() -> Iterator[None]:
    """Take torch's operators everywhere inside, for comparison."""
    global _references  # noqa: PLW0603 a switch of the process, as torch's own of this kind
    _references += 1
    try:
        yield
    finally:
        _references -= 1


def takes_cpu_kernels(tensor: Tensor) -> bool:
    """Whether a tensor is computed by the hand-written CPU passes.

    Not under autocast (they would mix precisions between forward and backward), not inside `torch.compile` (inductor
    fuses the reference better), and not without gradients, where torch's own operators have nothing to save.
    """
    return (
        tensor.device.type == "cpu"
        and torch.is_grad_enabled()
        and not _references
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
