"""K-FAC as its papers write it: dense, in float64, from the gradient of every token; knows nothing of `optim.kfac`.

Martens & Grosse 2015 (sections 3, 5, 6.3), Osawa et al. 2019 (section 5.3); sums over tokens as in Eschenhagen et al.
2023 ("expand").
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Rows(NamedTuple):
    """What a layer saw in an update."""

    inputs: Tensor
    """ã of each row, with a last 1 where the layer has a bias."""
    gradients: Tensor
    """Of the update's loss by each row's output."""


def rows_of(
    model: nn.Module, names: Iterable[str], loss_of: Callable[[], Tensor], *, every: bool = False
) -> dict[str, Rows]:
    """Add a leaf to the output of each layer and differentiate by it; one forward pass, one backward pass.

    Rows without a gradient are left out, unless `every` one is asked for.
    """
    layers = {name: model.get_submodule(name) for name in names}
    inputs: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    handles = []
    for name, layer in layers.items():

        def shifted(module: nn.Module, arguments: tuple[Tensor], output: Tensor, name: str = name) -> Tensor:
            leaves[name] = torch.zeros_like(output, requires_grad=True)
            inputs[name] = arguments[0].detach()
            return output + leaves[name]

        handles.append(layer.register_forward_hook(shifted))
    loss = loss_of()
    found = torch.autograd.grad(loss, list(leaves.values()))
    for handle in handles:
        handle.remove()
    rows = {}
    for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
        assert leaf.dim() == 2
        ones = torch.ones(len(leaf), 1 if layers[name].bias is not None else 0, dtype=leaf.dtype)
        used = [row for row in range(len(leaf)) if every or gradient[row].abs().max() > 0]
        rows[name] = Rows(torch.cat([inputs[name], ones], 1)[used], gradient[used])
    return rows


def dense_factors(rows: Rows, loss_terms: float) -> tuple[Tensor, Tensor]:
    """Return A, the mean of ã ãᵀ, and G, the sum of N g gᵀ, one outer product after another."""
    count = len(rows.inputs)
    terms = min(count, loss_terms)
    a = sum(torch.outer(row, row) for row in rows.inputs) / count
    g = sum(torch.outer(terms * row, terms * row) for row in rows.gradients) / terms
    return a, g


def dense_solution(
    gradient: Tensor, a: Tensor, g: Tensor, damping: float, *, factored: bool, relative: bool = False
) -> Tensor:
    """Solve with the whole matrix over a layer's weights, laid out as the gradient (O, I) is.

    Relative damping is `damping` times the mean eigenvalue of that matrix, and multiplies the solution.
    """
    if relative:
        mean = float(a.trace() * g.trace()) / (len(a) * len(g))
        return damping * mean * dense_solution(gradient, a, g, damping * mean, factored=factored)
    if factored:
        pi = ((a.trace() / len(a)) / (g.trace() / len(g))) ** 0.5
        a = a + pi * damping**0.5 * torch.eye(len(a), dtype=a.dtype)
        g = g + damping**0.5 / pi * torch.eye(len(g), dtype=g.dtype)
        curvature = torch.kron(g, a)
    else:
        curvature = torch.kron(g, a)
        curvature = curvature + damping * torch.eye(len(curvature), dtype=a.dtype)
    return torch.linalg.solve(curvature, gradient.flatten()).view_as(gradient)


def kl_factor(solved: Mapping[str, Tensor], true: Mapping[str, Tensor], learning_rate: float, kl_clip: float) -> float:
    """Return min(1, √(κ / (η² Σ xᵀg)))."""
    total = sum(float((solved[name] * true[name]).sum()) for name in solved) * learning_rate**2
    return min(1.0, (kl_clip / total) ** 0.5)
