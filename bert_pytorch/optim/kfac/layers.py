"""Which layers are preconditioned, and their gradients as matrices."""
# I inputs of a layer, the bias's constant among them; O its outputs

import logging
import re
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


def preconditioned_layers(model: nn.Module, skip: Sequence[str]) -> dict[str, nn.Linear]:
    """Return the linear layers that train, by name, in the model's order.

    Embeddings are none, nor is the product with the vocabulary, whose weight is the word embedding.

    Args:
        model: with names that do not depend on wrappers (DistributedDataParallel).
        skip: regular expressions; a layer is left out where one is found in its name or in its class's.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad
    }
    kept = {name: layer for name, layer in layers.items() if not _matches(skip, name, layer)}
    for pattern in skip:
        if not any(_matches([pattern], name, layer) for name, layer in layers.items()):
            logger.warning("K-FAC: --kfac_skip_layers %s matches no layer", pattern)
    return kept


def _matches(patterns: Iterable[str], name: str, layer: nn.Module) -> bool:
    return any(re.search(pattern, text) for pattern in patterns for text in (name, type(layer).__name__))


def statistics_dtype(layer: nn.Linear) -> torch.dtype:
    """Return the dtype of a layer's factors: never narrower than float32."""
    return torch.promote_types(layer.weight.dtype, torch.float32)


def sizes(layer: nn.Linear) -> tuple[int, int]:
    """Return I and O."""
    return layer.in_features + (layer.bias is not None), layer.out_features


def gradient_matrix(layer: nn.Linear) -> Tensor:
    """Return the weight's gradient with the bias's as its last column: (O, I)."""
    assert layer.weight.grad is not None
    gradient = layer.weight.grad.to(statistics_dtype(layer))
    bias: Tensor | None = layer.bias
    if bias is None:
        return gradient
    assert bias.grad is not None
    return torch.cat([gradient, bias.grad.to(gradient.dtype)[:, None]], dim=1)


def put_gradient(layer: nn.Linear, gradient: Tensor) -> None:
    """Write a matrix (O, I) back into the gradients of weight and bias."""
    assert layer.weight.grad is not None
    layer.weight.grad.copy_(gradient[:, : layer.in_features])
    if layer.bias is not None:
        assert layer.bias.grad is not None
        layer.bias.grad.copy_(gradient[:, -1])
