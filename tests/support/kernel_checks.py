"""Compare a kernel with its reference in float64, forward and backward."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Without a GPU kernels run in Triton's interpreter (tests/conftest.py asks for it)."""

TOLERANCES = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
"""Of the largest entry.  Float32: sums of some hundred terms, each rounded by 6e-8, in another order.  The others: what
is stored between forward and backward pass, and the result, are rounded by 2^-11 and 2^-8 of their own size, a few
times in a row."""


def both_ways(
    function: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], dtype: torch.dtype | None
) -> list[Tensor]:
    """Return outputs and the gradients of inputs for fixed random weightings of the outputs.

    Args:
        function: takes the inputs.
        inputs: None stays None.
        dtype: that inputs are cast to; None leaves each as it is.
    """
    given = [None if value is None else value.detach().to(dtype or value.dtype).requires_grad_() for value in inputs]
    outputs = function(*given)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(output.shape, generator=generator).to(output) for output in outputs]
    torch.autograd.backward(outputs, weights)
    return [*outputs, *(value.grad for value in given if value is not None)]


def assert_equals_reference(
    kernel: Callable[..., Tensor | tuple[Tensor, ...]],
    reference: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor | None],
    tolerance: float,
) -> None:
    """Assert that outputs and gradients are off the float64 reference by at most `tolerance` of the largest entry."""
    inputs = [None if value is None else value.to(DEVICE) for value in inputs]
    found, wanted = both_ways(kernel, inputs, None), both_ways(reference, inputs, torch.float64)
    for index, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        assert ours.shape == theirs.shape
        error = (ours.double() - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12)
        assert error <= tolerance, f"output or gradient {index}: off by {error:.1e} of the largest entry"
