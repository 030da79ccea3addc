"""When the functions of this room take their own forward and backward passes, and when torch's."""

import torch
from torch import Tensor


def takes_cpu_kernels(tensor: Tensor) -> bool:
    """Whether a tensor is computed by the hand-written CPU passes.

    Not under autocast (they would mix precisions between forward and backward), not inside `torch.compile` (inductor
    fuses the reference better), and not without gradients, where torch's own operators have nothing to save.
    """
    return (
        tensor.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
