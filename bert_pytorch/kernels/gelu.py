"""Bias and GELU, plain and gated, in plain torch; `triton_gelu` does the same in one pass each way."""
# T tokens, I intermediate, W = I, or 2 I where gated

import torch
import torch.nn.functional as F
from torch import Tensor


def bias_gelu_reference(x: Tensor, bias: Tensor | None, *, tanh: bool = False) -> Tensor:
    """Compute gelu(x + bias) in at least float32 (Hendrycks and Gimpel 2016).

    Args:
        x: (T, I), a linear layer's product without its bias.
        bias: (I,); None for none.
        tanh: whether by the approximation with tanh instead of the error function.

    Returns:
        (T, I) in the dtype of `x`.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    value = x.to(wide) if bias is None else x.to(wide) + bias
    return F.gelu(value, approximate="tanh" if tanh else "none").to(x.dtype)


def geglu_reference(x: Tensor, bias: Tensor | None, *, tanh: bool = False) -> Tensor:
    """Compute gelu(left half) * right half of x + bias in at least float32 (Shazeer 2020, eq. 5).

    Args:
        x: (T, 2 I), the gate's product and the other's beside each other.
        bias: (2 I,); None for none.
        tanh: as in `bias_gelu_reference`.

    Returns:
        (T, I) in the dtype of `x`.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    gate, linear = (x.to(wide) if bias is None else x.to(wide) + bias).chunk(2, dim=-1)
    return (F.gelu(gate, approximate="tanh" if tanh else "none") * linear).to(x.dtype)
