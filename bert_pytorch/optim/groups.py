"""Which parameters are decayed: all but biases and LayerNorm's, as in BERT (google-research/bert, optimization.py)."""

from collections.abc import Iterable
from typing import Any

import torch

NO_DECAY_WORDS = ("bias", "LayerNorm", "gamma", "beta")
"""A parameter whose dotted name has a part equal to one of these is not decayed."""


def parameter_groups(
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """Split parameters into a decayed and an undecayed group, each in the model's own order.

    Args:
        named_parameters: as from `module.named_parameters()`; frozen parameters (`requires_grad` False) are left out.
        weight_decay: of the first group; the second has 0.

    Returns:
        One dict a group: `params` holds (name, parameter) pairs, which torch's optimizers take apart and keep as
        `param_names` in their state; groups without parameters are left out.

    Raises:
        ValueError: if there is nothing to train.
    """
    decayed: list[tuple[str, torch.nn.Parameter]] = []
    undecayed: list[tuple[str, torch.nn.Parameter]] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            (undecayed if is_undecayed(name) else decayed).append((name, parameter))
    if not decayed and not undecayed:
        raise ValueError("no parameter to train: all are frozen, or there are none.")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def is_undecayed(name: str) -> bool:
    """Whether a parameter of this dotted name takes no weight decay."""
    return any(part in NO_DECAY_WORDS for part in name.split("."))
