"""What the end of a transformer block computes, LayerNorm(residual + dropout(x + bias)), in plain torch.

`triton_residual_norm` computes the same in one pass over memory each way.
"""
# T tokens, H hidden

import torch
import torch.nn.functional as F
from torch import Tensor


def residual_dropout_norm_reference(
    x: Tensor,
    residual: Tensor | None,
    bias: Tensor | None,
    weight: Tensor,
    shift: Tensor | None,
    dropout_p: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Add, drop and normalise in at least float32, whatever autocast does.

    Args:
        x: (T, H), what the block's last linear layer returned.
        residual: (T, H), what the block was given; None for none.
        bias: (H,), of that linear layer where it was left out there.
        weight: (H,), LayerNorm's gamma.
        shift: (H,), LayerNorm's beta; None for none.
        dropout_p: probability of dropping an entry of x + bias; 0 outside training.
        eps: added to the variance.

    Returns:
        The normalised sum, (T, H) in the dtype of `x`, and the sum itself, in the wider dtype of `x` and `residual`:
        pre-norm layers carry it on.
    """
    with torch.autocast(x.device.type, enabled=False):
        wide = torch.promote_types(x.dtype, torch.float32)
        total = x.to(wide) if bias is None else x.to(wide) + bias
        total = F.dropout(total, dropout_p) if dropout_p else total
        total = total if residual is None else residual.to(wide) + total
        total = total.to(x.dtype if residual is None else torch.promote_types(x.dtype, residual.dtype))
        normalised = F.layer_norm(total.to(wide), total.shape[-1:], weight.to(wide), _to(shift, wide), eps)
        return normalised.to(x.dtype), total


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
