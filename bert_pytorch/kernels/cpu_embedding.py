"""A word embedding that is also the decoder of the masked-LM head (tied weights), with one gradient instead of two.

Apart, the look-up's gradient fills a matrix of the whole vocabulary with zeros, adds to a few of its rows, and is then
added to the decoder's: at H = 256 and 30,522 tokens 31 MB written, and read and written again, for 3 MB of gradients.
"""
# T tokens, V vocabulary, H hidden

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.kernels.cpu import takes_cpu_kernels


class _TiedLookup(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.size = weight.shape
        ctx.set_materialize_grads(False)
        return weight.index_select(0, ids), weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, rows: Tensor | None, decoder: Tensor | None) -> tuple[Tensor | None, None]:
        (ids,) = ctx.saved_tensors
        if rows is None:
            return decoder, None
        if decoder is None:
            decoder = rows.new_zeros(ctx.size)
        elif not decoder.is_contiguous():  # an expanded gradient, as of a plain sum, has one number for many places
            decoder = decoder.contiguous()
        return decoder.index_add_(0, ids, rows), None


def tied_lookup(weight: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Look tokens up, and hand the matrix on for the decoder: it must be taken from there.

    Args:
        weight: (V, H).
        ids: int32 or int64 (T,), in [0, V).

    Returns:
        `weight[ids]`, (T, H), and `weight`.
    """
    if takes_cpu_kernels(weight):
        return _TiedLookup.apply(weight, ids)
    return F.embedding(ids, weight), weight
