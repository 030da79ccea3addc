"""AdamW (Loshchilov & Hutter 2019): torch's own, with its single fused kernel where the device has one.

The kernel is elementwise, hence bitwise the same from run to run.
"""

from collections.abc import Sequence
from typing import Any

import torch

FUSED_DEVICES = ("cpu", "cuda")


def build_adamw(
    groups: Sequence[dict[str, Any]], *, learning_rate: float, betas: tuple[float, float], eps: float
) -> torch.optim.AdamW:
    """Return AdamW over `groups` (from `parameter_groups`), each with its own weight decay."""
    devices = {parameter.device.type for group in groups for _, parameter in group["params"]}
    fused = devices <= set(FUSED_DEVICES)
    return torch.optim.AdamW(list(groups), lr=learning_rate, betas=betas, eps=eps, fused=fused)
