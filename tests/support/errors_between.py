"""Errors between tensors as the project's numbers define them."""

from collections.abc import Mapping

from torch import Tensor


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """Return max |a - b| / max |b|."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def largest_error(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Return the largest relative error of any gradient.

    One whose largest entry is under 1e-6 of the largest of all (a key's bias: its gradient is 0 but for rounding) is
    compared with the latter.
    """
    assert found.keys() == wanted.keys()
    largest = max(tensor.abs().max().item() for tensor in wanted.values())
    errors = []
    for name, tensor in wanted.items():
        scale = tensor.abs().max().item()
        scale = largest if scale < 1e-6 * largest else scale
        errors.append((found[name] - tensor).abs().max().item() / scale)
    return max(errors)
