"""The mathematics of one layer: running factors, their eigenbases, and the damped solve in them.

A linear layer computes W ã with ã = (a, 1) where it has a bias.  Its curvature is taken to be A ⊗ G with A = E[ã ãᵀ]
and G the second moment of the output's gradients (Martens & Grosse 2015, section 3; sums over tokens as in Eschenhagen
et al. 2023, "expand", section 3.2).
"""
# I inputs of a layer, the bias's constant among them; O its outputs

from typing import NamedTuple

import torch
from torch import Tensor


def triangle(matrix: Tensor) -> Tensor:
    """Fold a symmetric matrix (n, n) into ((n + 1) // 2, n + 1): its upper triangle, without a list of indices.

    Row i holds row i from the diagonal on, and before it row n - 1 - i from the diagonal on, backwards.
    """
    half = (len(matrix) + 1) // 2
    above, below = matrix[:half].triu(), matrix.flip(0, 1)[:half].tril()
    return torch.nn.functional.pad(above, (1, 0)) + torch.nn.functional.pad(below, (0, 1))


def from_triangle(folded: Tensor) -> Tensor:
    """Undo `triangle`."""
    size = folded.shape[1] - 1
    upper = folded.new_zeros(size, size)
    upper[: len(folded)] = folded[:, 1:].triu()
    upper[len(folded) :] = folded[: size // 2, :-1].tril().flip(0, 1)
    return upper + upper.triu(1).T


def add_products(sums: Tensor, rows: Tensor, width: int = 512) -> None:
    """Add rowsᵀ rows to `sums` where `triangle` looks: block columns of `width`, each down to the diagonal.

    At 3,072 columns that is 58 % of the multiplications, at 768 78 %.

    Args:
        sums: (n, n); what is below the diagonal's blocks stays as it is.
        rows: (R, n).
        width: of a block; narrower ones multiply less and slower.
    """
    for first in range(0, len(sums), width):
        last = min(first + width, len(sums))
        sums[:last, first:last].addmm_(rows[:, :last].T, rows[:, first:last])


class Factors(NamedTuple):
    """Running averages of one layer, folded by `triangle`."""

    inputs: Tensor
    """Of A, (I, I)."""
    outputs: Tensor
    """Of G, (O, O)."""

    def mixed(self, new: "Factors", decay: float) -> "Factors":
        """Return decay × old + (1 - decay) × new (Martens & Grosse 2015, section 5)."""
        return Factors(*(torch.lerp(fresh, old, decay) for old, fresh in zip(self, new, strict=True)))


class Eigenbasis(NamedTuple):
    """Both factors' eigen-decompositions, in which A ⊗ G is diagonal (Grosse & Martens 2016, section 4)."""

    input_vectors: Tensor
    """(I, I), in columns."""
    input_values: Tensor
    """(I,), none below 0."""
    output_vectors: Tensor
    """(O, O), in columns."""
    output_values: Tensor
    """(O,), none below 0."""

    @classmethod
    def of(cls, factors: Factors) -> "Eigenbasis | None":
        """Decompose both factors; None where the algorithm fails, which it may on any but exact numbers."""
        parts: list[Tensor] = []
        for folded in factors:
            try:
                values, vectors = torch.linalg.eigh(from_triangle(folded))
            except torch.linalg.LinAlgError:  # it did not converge
                return None
            if not (values.isfinite().all() and vectors.isfinite().all()):  # a GPU's library need not say so
                return None
            # Second moments have no negative eigenvalues: those that come out are rounding.  LAPACK's vectors lie by
            # columns; lying by rows they can be sent, and multiply with the same bits once they are loaded.
            parts += [vectors.contiguous(), values.clamp(min=0)]
        return cls(*parts)

    def solve(self, gradient: Tensor, damping: float, *, factored: bool = False, relative: bool = False) -> Tensor:
        """Solve (A ⊗ G + damping) x = gradient for x, both seen as matrices.

        Args:
            gradient: (O, I).
            damping: λ > 0.
            factored: damp each factor instead, (A + π √λ) ⊗ (G + √λ / π), with π² the ratio of their mean eigenvalues
                (Martens & Grosse 2015, section 6.3).
            relative: divide A ⊗ G by the mean of its eigenvalues first, and multiply x by λ: what has much less
                curvature than λ times the mean keeps its gradient, nothing grows.

        Returns:
            (O, I).
        """
        inputs, outputs = self._values(relative)
        if factored:
            means = inputs.mean(), outputs.mean()
            # A factor that is zero has no scale to share the damping by.
            pi = torch.where((means[0] > 0) & (means[1] > 0), means[0] / means[1], 1.0).sqrt()
            root = damping**0.5
            curvature = (outputs + root / pi)[:, None] * (inputs + root * pi)
        else:
            curvature = outputs[:, None] * inputs + damping
        if relative:
            curvature = curvature / damping
        turned = self.output_vectors.T @ gradient @ self.input_vectors
        return self.output_vectors @ (turned / curvature) @ self.input_vectors.T

    def largest_curvature(self, *, relative: bool = False) -> Tensor:
        """Return the largest eigenvalue of A ⊗ G, or (`relative`) what it is times their mean; ()."""
        inputs, outputs = self._values(relative)
        return inputs[-1] * outputs[-1]

    def _values(self, relative: bool) -> tuple[Tensor, Tensor]:
        values = self.input_values, self.output_values
        if not relative:
            return values
        # A factor that is zero has no scale, and stays zero.
        inputs, outputs = (each / each.mean().clamp(min=torch.finfo(each.dtype).tiny) for each in values)
        return inputs, outputs


def kl_scale(products: Tensor, learning_rate: float, kl_clip: float) -> Tensor:
    """Return ν = min(1, √(κ / (η² Σ xᵀg))), by which all preconditioned gradients are multiplied.

    η² Σ xᵀg bounds what the step changes the model's predictions by: twice their KL divergence to second order, as
    xᵀ(A ⊗ G)x ≤ xᵀg (Ba et al. 2017, section 5; Osawa et al. 2019, section 5.3).

    Args:
        products: xᵀg of each layer, of preconditioned and true gradient.
        learning_rate: η.
        kl_clip: κ > 0.

    Returns:
        (), on the device of `products`.
    """
    change = learning_rate**2 * products.sum()
    return torch.where(change > kl_clip, kl_clip / change, 1.0).sqrt()
