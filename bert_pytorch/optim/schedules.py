"""Learning rate of each update: a pure function of its number, never read from optimizer state.

Updates are counted from 1 within a phase of T; the first W are warm-up.  No update is wasted: update 1 has a rate above
zero, and so has update T.
"""

import math
from typing import ClassVar, Literal

from pydantic import Field

from bert_pytorch.config.settings import Settings


class ScheduleConfig(Settings):
    """How the learning rate rises and falls over the updates of a phase."""

    lr_decay: Literal["poly", "linear", "cosine", "constant"] = "poly"
    """Shape of the decay after warm-up; poly is NVIDIA's for LAMB, linear is BERT's."""
    warmup_proportion: float = Field(0.01, ge=0, le=1)
    """Part of max_steps over which the rate rises linearly to its peak. NVIDIA: 0.2843 in phase 1, 0.128 in phase 2."""
    lr_power: float = Field(0.5, gt=0)
    """Exponent of the poly decay (NVIDIA: 0.5)."""
    lr_end: float = Field(0.01, gt=0, le=1)
    """Rate of the last update as a fraction of the peak, for linear and cosine; above 0, so that it does something."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "lr_scheduler": "--lr_decay",
        "warmup_steps": "--warmup_proportion, the part of --max_steps that is warm-up",
        "warmup_updates": "--warmup_proportion, the part of --max_steps that is warm-up",
    }


def warmup_updates(max_steps: int, warmup_proportion: float) -> int:
    """Return W = floor(proportion × T); a product within a millionth under a whole number counts as that number."""
    return min(max_steps, math.floor(warmup_proportion * max_steps + 1e-6))  # 0.29 * 100 is 28.999999999999996


def learning_rate_factor(update: int, *, max_steps: int, config: ScheduleConfig) -> float:
    """Return what the peak learning rate is multiplied by in one update.

    Args:
        update: k, 1 for the phase's first update.
        max_steps: T, updates of the phase.
        config: shape of the schedule.

    Returns:
        A factor in (0, 1].

    Raises:
        ValueError: if `update` is outside [1, `max_steps`].
    """
    if not 1 <= update <= max_steps:
        raise ValueError(f"update {update} is outside the phase's 1 to {max_steps}.")
    warmup = warmup_updates(max_steps, config.warmup_proportion)
    if update <= warmup:
        return update / warmup
    if config.lr_decay == "poly":
        return float((1 - (update - 1) / max_steps) ** config.lr_power)
    if config.lr_decay == "constant":
        return 1.0
    progress = (update - warmup) / (max_steps - warmup)  # in (0, 1]
    if config.lr_decay == "linear":
        remaining = 1 - progress
    else:
        remaining = (1 + math.cos(math.pi * progress)) / 2
    return config.lr_end + (1 - config.lr_end) * remaining
