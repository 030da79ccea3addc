"""The masked-LM loss from hidden states: decoder, softmax and cross-entropy over the vocabulary in one operation.

Scores of the vocabulary are the largest tensor of a step.  Torch's way writes them, their log-softmax and two gradients
of that size; this one turns the scores into probabilities where they stand, and these into gradients where they stand.
Above a limit they are not kept for the backward pass: the gradients are computed with the loss, some rows at a time,
and the backward pass only multiplies them by its own factor.
"""
# M masked tokens, H hidden, V rows of the decoder

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from bert_pytorch.records import IGNORED_LABEL

_ROWS_AT_ONCE = 512
"""Enough that adding to the decoder's gradient, once for so many rows, costs little beside the product."""
KEPT_BYTES = 1 << 26
"""Probabilities that are kept for the backward pass at most; multiplying the decoder's gradient costs a pass over it
instead, 1 % of a step with H = 256."""
_UNSURE = 69.0
"""Losses above come from probabilities below 1e-30, which may have lost digits to underflow."""


def linear_cross_entropy_reference(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Compute the same as `linear_cross_entropy` by torch's operators."""
    return F.cross_entropy(F.linear(hidden, weight, bias), labels, ignore_index=IGNORED_LABEL, reduction="sum")


class _LinearCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, kept_bytes: int) -> Tensor:
        keep = hidden.element_size() * len(hidden) * len(weight) <= kept_bytes
        ctx.save_for_backward(hidden, weight, bias, labels)
        ctx.kept, ctx.grads = [], _Gradients.zeros(hidden, bias)
        loss = hidden.new_zeros((), dtype=torch.float64)
        for rows in _pieces(len(hidden)):
            scores = torch.addmm(bias, hidden[rows], weight.mT)
            target = _at_labels(scores, labels[rows])
            probabilities = torch.softmax(scores, 1, out=scores)
            losses = -_at_labels(probabilities, labels[rows]).log()
            unsure = (losses > _UNSURE).nonzero().squeeze(1)
            if len(unsure):
                exact = torch.addmm(bias, hidden[rows][unsure], weight.mT).logsumexp(1) - target[unsure]
                losses[unsure] = exact
            loss += losses.masked_fill(labels[rows] == IGNORED_LABEL, 0).sum(dtype=torch.float64)
            if keep:
                ctx.kept.append(probabilities)
            else:
                ctx.grads = ctx.grads.plus(rows, probabilities, hidden, weight, labels)
        return loss.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, _, labels = ctx.saved_tensors
        grads: _Gradients = ctx.grads
        if ctx.kept:
            hidden = hidden * grad  # the small factor, not the gradient of the whole vocabulary
            for rows, probabilities in zip(_pieces(len(hidden)), ctx.kept, strict=True):
                grads = grads.plus(rows, probabilities, hidden, weight, labels)
        elif grads.weight is not None:
            grads.weight.mul_(grad)
        ctx.kept = ctx.grads = None
        return grads.hidden.mul_(grad), grads.of_weight(weight), grads.bias.mul_(grad), None, None


class _Gradients(NamedTuple):
    """Those of the rows so far."""

    hidden: Tensor
    weight: Tensor | None
    bias: Tensor

    @classmethod
    def zeros(cls, hidden: Tensor, bias: Tensor) -> "_Gradients":
        return cls(torch.empty_like(hidden), None, torch.zeros_like(bias))

    def plus(self, rows: slice, probabilities: Tensor, hidden: Tensor, weight: Tensor, labels: Tensor) -> "_Gradients":
        """Add some rows' share; their probabilities are used up."""
        minus_one_at_labels(probabilities, labels[rows])
        torch.mm(probabilities, weight, out=self.hidden[rows])
        self.bias.addmv_(probabilities.mT, probabilities.new_ones(()).expand(len(probabilities)))
        if self.weight is None:
            return self._replace(weight=probabilities.mT @ hidden[rows])
        self.weight.addmm_(probabilities.mT, hidden[rows])
        return self

    def of_weight(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight) if self.weight is None else self.weight


def _pieces(count: int) -> Sequence[slice]:
    return [slice(start, min(start + _ROWS_AT_ONCE, count)) for start in range(0, count, _ROWS_AT_ONCE)]


def _at_labels(values: Tensor, labels: Tensor) -> Tensor:
    """Return each row's value at its label, (n,); any where there is none."""
    return values.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)


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
    return _LinearCrossEntropy.apply(hidden, weight, bias, labels, kept_bytes)
