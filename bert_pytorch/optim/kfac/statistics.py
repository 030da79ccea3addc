"""What the passes of one update say about each layer's curvature, as sums over the rows that count.

A row is a token, or a sequence's [CLS], or a masked token: whatever a layer computed.  It counts where its output has a
gradient: empty slots of fixed rows, padding and tokens without a label have none, so that packed and padded batches,
whole and pruned last layers say the same.
"""
# R rows of a call, I inputs of a layer with the bias's constant, O its outputs

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bert_pytorch.optim.kfac.factors import Factors, add_products, triangle
from bert_pytorch.optim.kfac.layers import sizes, statistics_dtype


@dataclass
class LayerSums:
    """Of one layer over the passes of an update, in float32 or wider."""

    inputs: Tensor
    """Σ ã ãᵀ over sampled rows, (I, I), on and above the diagonal."""
    outputs: Tensor
    """Σ g gᵀ over sampled rows, (O, O), likewise, with gradients as the backward pass had them."""
    counts: Tensor
    """float64 (2,): rows that count, and those of them that were sampled."""

    @classmethod
    def zero(cls, layer: nn.Linear) -> "LayerSums":
        """Make sums over nothing."""
        weight, (inputs, outputs) = layer.weight, sizes(layer)
        zeros = partial(torch.zeros, device=weight.device)
        dtype = statistics_dtype(layer)
        return cls(
            zeros(inputs, inputs, dtype=dtype), zeros(outputs, outputs, dtype=dtype), zeros(2, dtype=torch.float64)
        )

    def add(self, inputs: Tensor, gradients: Tensor, chosen: Tensor | None, *, bias: bool) -> None:
        """Add a call's rows.

        Args:
            inputs: (R, in_features).
            gradients: of the outputs, (R, O).
            chosen: int64, the rows to take; None: all.
            bias: whether the layer has one.
        """
        dtype = self.inputs.dtype
        counts = (gradients != 0).any(1)
        self.counts[0] += counts.sum()
        if chosen is not None:
            inputs, gradients, counts = (rows.index_select(0, chosen) for rows in (inputs, gradients, counts))
        self.counts[1] += counts.sum()
        inputs, gradients = inputs.to(dtype), gradients.to(dtype)
        if bias:
            inputs = nn.functional.pad(inputs, (0, 1), value=1.0)
        inputs = inputs.masked_fill(~counts[:, None], 0)  # not a product: an empty slot may hold anything
        add_products(self.inputs, inputs)
        add_products(self.outputs, gradients)

    def folded(self) -> Factors:
        """Return both sums by `triangle`, as they are sent."""
        return Factors(triangle(self.inputs), triangle(self.outputs))


def factors_of(sums: Factors, counts: Tensor, loss_terms: float, gradient_scale: float) -> Factors:
    """Return A and G of an update from the sums over all ranks.

    The loss is a mean over N terms, so that a row's gradient is 1/N of what it would be alone: the mean curvature
    is N Σ g gᵀ.  A layer with fewer rows than that (the pooler: one a sequence) belongs to a loss over these rows.

    Args:
        sums: `LayerSums.folded`, added up.
        counts: float64 (2,), `LayerSums.counts`, added up.
        loss_terms: N.
        gradient_scale: what gradients were multiplied by.
    """
    rows, sampled = counts.unbind()
    scale = rows.clamp(max=loss_terms) * (rows / sampled) / gradient_scale**2
    dtype = sums.inputs.dtype
    return Factors(sums.inputs / sampled.to(dtype), sums.outputs * scale.to(dtype))


class Watch:
    """Hooks on the layers from `start` to `stop`; at other times the layers know nothing of it.

    Inputs are kept until their backward pass, as the layers' own passes keep them; recomputed activations
    (--checkpoint_activations) are not kept a second time, the first ones are.

    Args:
        layers: by name.
        max_rows: rows of a call that are taken, evenly at random; None: all.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], max_rows: int | None = None) -> None:
        self._layers = layers
        self._max_rows = max_rows
        self._handles: list[RemovableHandle] = []
        self._sums: dict[str, LayerSums] = {}
        self._generator = torch.Generator()

    def start(self, seed: int) -> None:
        """Watch the passes from now on; `seed` is of the choice of rows."""
        self._generator.manual_seed(seed)
        self._sums = {name: LayerSums.zero(layer) for name, layer in self._layers.items()}
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(partial(self._called, name)))

    def stop(self) -> dict[str, LayerSums]:
        """Take the hooks off and return what they saw; empty where nothing was started."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        seen, self._sums = self._sums, {}
        return seen

    def _called(self, name: str, layer: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(partial(self._came_back, name, arguments[0].detach()))

    def _came_back(self, name: str, inputs: Tensor, gradient: Tensor) -> None:
        layer = self._layers[name]
        gradients = gradient.detach().reshape(-1, layer.out_features)
        self._sums[name].add(
            inputs.reshape(-1, layer.in_features),
            gradients,
            self._choice(gradients),
            bias=layer.bias is not None,
        )

    def _choice(self, rows: Tensor) -> Tensor | None:
        if self._max_rows is None or len(rows) <= self._max_rows:
            return None
        return torch.randperm(len(rows), generator=self._generator)[: self._max_rows].to(rows.device)
