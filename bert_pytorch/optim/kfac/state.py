"""What K-FAC keeps in a checkpoint, and checking that it belongs to this model."""

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from bert_pytorch.errors import InputError
from bert_pytorch.optim.kfac.factors import Eigenbasis, Factors
from bert_pytorch.optim.kfac.layers import sizes, statistics_dtype

Parts = TypeVar("Parts", Factors, Eigenbasis)


def factor_shapes(layer: nn.Linear) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a layer's `Factors`."""
    return tuple(((size + 1) // 2, size + 1) for size in sizes(layer))


def basis_shapes(layer: nn.Linear) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a layer's `Eigenbasis`."""
    inputs, outputs = sizes(layer)
    return (inputs, inputs), (inputs,), (outputs, outputs), (outputs,)


def kfac_state(factors: Mapping[str, Factors], bases: Mapping[str, Eigenbasis]) -> dict[str, Any]:
    """Return plain dicts of tensors by layer; eigenbases as well, so that a run continues between two of them."""
    return {
        "factors": {name: parts._asdict() for name, parts in factors.items()},
        "bases": {name: parts._asdict() for name, parts in bases.items()},
    }


def checked_state(
    state: Mapping[str, Any], layers: Mapping[str, nn.Linear], where: str
) -> tuple[dict[str, Factors], dict[str, Eigenbasis]]:
    """Read `kfac_state`, on the devices of the layers, in their order.

    Raises:
        InputError: if it is anything else, or of other layers; `where` names the file.
    """
    factors = _read(
        state.get("factors"), Factors, layers, {name: factor_shapes(layer) for name, layer in layers.items()}, where
    )
    bases = _read(
        state.get("bases"), Eigenbasis, layers, {name: basis_shapes(layer) for name, layer in layers.items()}, where
    )
    return factors, bases


def _read(
    saved: Any,
    kind: type[Parts],
    layers: Mapping[str, nn.Linear],
    shapes: Mapping[str, tuple[tuple[int, ...], ...]],
    where: str,
) -> dict[str, Parts]:
    if not isinstance(saved, Mapping):
        raise InputError(f"{where}: its state of K-FAC is incomplete, or of another --kfac_backend. {_ADVICE}")
    strangers = sorted(str(name) for name in saved if name not in layers)
    if strangers:
        raise InputError(
            f"{where}: its state of K-FAC knows layers that are not preconditioned here: {strangers[0]}. "
            f"Use the --kfac_skip_layers that it was trained with. {_ADVICE}"
        )
    read = {}
    for name, layer in layers.items():
        if name not in saved:
            continue
        parts = [saved[name].get(part) for part in kind._fields] if isinstance(saved[name], Mapping) else []
        found = tuple(tuple(part.shape) if isinstance(part, torch.Tensor) else None for part in parts)
        if found != shapes[name]:
            raise InputError(
                f"{where}: K-FAC's {kind.__name__} of {name} has shapes {found}, wanted {shapes[name]}. {_ADVICE}"
            )
        target = {"device": layer.weight.device, "dtype": statistics_dtype(layer)}
        read[name] = kind(*(part.to(**target) for part in parts))
    return read


_ADVICE = "Or give it as --init_checkpoint to a new output folder to start from its weights alone."
