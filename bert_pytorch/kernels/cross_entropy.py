"""The masked-LM loss from hidden states: decoder, softmax and cross-entropy over the vocabulary in one operation.

Scores of the vocabulary are the largest tensor of a step.  Torch's way writes them, their log-softmax and two gradients
of that size; this one turns the scores into probabilities where they stand, and these into gradients where they stand.
Above a limit nothing of that size is kept: `chunked_cross_entropy`.
"""
# M masked tokens, H hidden, V rows of the decoder

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.kernels.chunked_cross_entropy import chunked_cross_entropy
from bert_pytorch.records import IGNORED_LABEL

_ROWS_AT_ONCE = 512
"""Above the limit: enough that adding to the decoder's gradient, once for so many rows, costs little beside the
product."""
KEPT_BYTES = 1 << 26
"""Probabilities that are kept for the backward pass at most."""
_UNSURE = 69.0
"""Losses above come from probabilities below 1e-30, which may have lost digits to underflow."""


def linear_cross_entropy_reference(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Compute the same as `linear_cross_entropy` by torch's operators."""
    return F.cross_entropy(F.linear(hidden, weight, bias), labels, ignore_index=IGNORED_LABEL, reduction="sum")


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        scores = torch.addmm(bias, hidden, weight.mT)
        at = labels.clamp(min=0).unsqueeze(1)
        target = scores.gather(1, at).squeeze(1)
        probabilities = torch.softmax(scores, 1, out=scores)
        losses = -probabilities.gather(1, at).squeeze(1).log()
        unsure = (losses > _UNSURE).nonzero().squeeze(1)
        if len(unsure):
            losses[unsure] = torch.addmm(bias, hidden[unsure], weight.mT).logsumexp(1) - target[unsure]
        ctx.save_for_backward(hidden, weight, labels)
        ctx.probabilities = probabilities
        return losses.masked_fill(labels == IGNORED_LABEL, 0).sum(dtype=torch.float64).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, labels = ctx.saved_tensors
        slopes, ctx.probabilities = ctx.probabilities, None
        minus_one_at_labels(slopes, labels)
        grad_bias = slopes.mT @ grad.expand(len(slopes))
        # The small factor is multiplied, not the gradient of the whole vocabulary.
        return (slopes @ weight).mul_(grad), slopes.mT @ (hidden * grad), grad_bias, None


def minus_one_at_labels(probabilities: Tensor, labels: Tensor) -> None:
    """Turn probabilities into d loss / d score, in place: p - 1 at the label; nothing where there is none."""
    labelled = labels != IGNORED_LABEL
    ones = labelled.to(probabilities.dtype).neg_().unsqueeze(1)
    probabilities.scatter_add_(1, labels.clamp(min=0).unsqueeze(1), ones)
    if not labelled.all():
        probabilities[~labelled] = 0


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, *, kept_bytes: int = KEPT_BYTES
) -> Tensor:
    """Sum -log softmax(hidden @ weight.T + bias)[label] over the rows with a label.

    Args:
        hidden: (M, H), float32 or float64; M may be 0.
        weight: (V, H) of the same dtype.
        bias: (V,) likewise; -inf takes an entry out of the softmax.
        labels: int64 (M,) in [0, V), or `IGNORED_LABEL`.
        kept_bytes: of probabilities at most for the backward pass; where they are more, gradients come with the loss.

    Returns:
        (), natural-log units, summed in float64.
    """
    if hidden.element_size() * len(hidden) * len(weight) > kept_bytes:
        return chunked_cross_entropy(hidden, weight, bias, labels, _ROWS_AT_ONCE)
    return _LinearCrossEntropy.apply(hidden, weight, bias, labels)
