"""The masked-LM loss from hidden states: decoder, softmax and cross-entropy over the vocabulary in one operation.

Scores of the vocabulary are the largest tensor of a step.  Torch's way writes them, their log-softmax and two gradients
of that size; this one turns the scores into probabilities where they stand, and these into gradients where they stand.
Above a limit they are not kept at all but computed again in the backward pass, some rows at a time.
"""
# M masked tokens, H hidden, V rows of the decoder

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.records import IGNORED_LABEL

_ROWS_AT_ONCE = 512
"""Enough that adding to the decoder's gradient, once for so many rows, costs little beside the product."""
KEPT_BYTES = 1 << 29
"""Probabilities that are kept for the backward pass at most."""


def linear_cross_entropy_reference(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Compute the same as `linear_cross_entropy` by torch's operators."""
    return F.cross_entropy(F.linear(hidden, weight, bias), labels, ignore_index=IGNORED_LABEL, reduction="sum")


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, kept_bytes: int) -> Tensor:
        keep = hidden.element_size() * len(hidden) * len(weight) <= kept_bytes
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.kept = {}
        loss = hidden.new_zeros((), dtype=torch.float64)
        for start in range(0, len(hidden), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            scores, wanted = torch.addmm(bias, hidden[rows], weight.mT), labels[rows]
            best = scores.amax(1)
            target = scores.gather(1, wanted.clamp(min=0).unsqueeze(1)).squeeze(1)
            probabilities = torch.softmax(scores, 1, out=scores)
            # log sum exp = best - log(largest probability); the target's own probability may underflow.
            losses = best - probabilities.amax(1).log() - target
            loss += losses.masked_fill(wanted == IGNORED_LABEL, 0).sum(dtype=torch.float64)
            if keep:
                ctx.kept[start] = probabilities
        return loss.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels = ctx.saved_tensors
        grad_hidden, grad_bias = torch.empty_like(hidden), torch.zeros_like(bias)
        grad_weight = None
        for start in range(0, len(hidden), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            probabilities = ctx.kept.pop(start, None)
            if probabilities is None:
                scores = torch.addmm(bias, hidden[rows], weight.mT)
                probabilities = torch.softmax(scores, 1, out=scores)
            minus_one_at_labels(probabilities, labels[rows])
            torch.mm(probabilities, weight, out=grad_hidden[rows]).mul_(grad)
            grad_bias.addmv_(probabilities.mT, grad.expand(len(probabilities)))
            scaled = hidden[rows] * grad  # the small factor, not the gradient of the whole vocabulary
            if grad_weight is None:
                grad_weight = probabilities.mT @ scaled
            else:
                grad_weight.addmm_(probabilities.mT, scaled)
        return grad_hidden, torch.zeros_like(weight) if grad_weight is None else grad_weight, grad_bias, None, None


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
        kept_bytes: of probabilities at most for the backward pass; where they are more, it computes scores again.

    Returns:
        (), natural-log units, summed in float64.
    """
    return _LinearCrossEntropy.apply(hidden, weight, bias, labels, kept_bytes)
