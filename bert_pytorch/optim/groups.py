"""Which parameters are decayed: all but biases and LayerNorm's, as in BERT (google-research/bert, optimization.py)."""

import re
from collections.abc import Iterable
from typing import Any

import torch

LEARNING_RATE_SCALE = "learning_rate_scale"
"""Key of a group whose learning rate is the update's times this."""

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


def layered_groups(
    named_parameters: Iterable[tuple[str, torch.nn.Parameter]], weight_decay: float, layer_decay: float, layers: int
) -> list[dict[str, Any]]:
    """Split parameters as `parameter_groups` does, and by layer, each with a learning rate scale of its own.

    Embeddings count as layer 0, what stands above the layers (LayerNorm, pooler, heads) as layer L + 1; layer i has
    the scale decay^(L + 1 - i) (Clark et al. 2020, section 3.2).

    Args:
        named_parameters: as for `parameter_groups`.
        weight_decay: likewise.
        layer_decay: scale of a layer as a part of that of the layer above it.
        layers: L.
    """
    by_layer: dict[int, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            by_layer.setdefault(layer_of(name, layers), []).append((name, parameter))
    return [
        {**group, LEARNING_RATE_SCALE: layer_decay ** (layers + 1 - layer)}
        for layer, parameters in sorted(by_layer.items())
        for group in parameter_groups(parameters, weight_decay)
    ]


def layer_of(name: str, layers: int) -> int:
    """Return the layer that a parameter of this dotted name belongs to: 0 for embeddings, L + 1 above the layers."""
    if found := re.search(r"\bencoder\.layer\.(\d+)\.", name):
        return int(found[1]) + 1
    return 0 if "embeddings" in name.split(".") else layers + 1


def is_undecayed(name: str) -> bool:
    """Whether a parameter of this dotted name takes no weight decay."""
    return any(part in NO_DECAY_WORDS for part in name.split("."))
