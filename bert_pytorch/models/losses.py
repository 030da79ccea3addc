"""Losses as sums, for training to divide by the counts over all ranks and micro-batches."""

from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.records import IGNORED_LABEL
from bert_pytorch.runtime.device import widest_float

T = TypeVar("T")


class EachLoss(NamedTuple, Generic[T]):
    """A weight, count, sum or mean of each loss that training adds up."""

    mlm: T
    """Masked tokens: cross-entropy with the labels."""
    nsp: T
    """Pairs: cross-entropy with whether B follows A."""
    soft_targets: T
    """Masked tokens: divergence from a teacher's predictions."""
    cosine: T
    """Real tokens: 1 - cosine between last hidden states and a teacher's."""


PLAIN = EachLoss(mlm=1.0, nsp=1.0, soft_targets=0.0, cosine=0.0)
"""Weights of training without a teacher."""


class LossTerms(NamedTuple):
    """Sums of one micro-batch on one rank; the counts are properties of the `MicroBatch`, named at each."""

    mlm_loss_sum: Tensor
    """float (), natural-log cross-entropy summed over the masked tokens (`num_masked`)."""
    nsp_loss_sum: Tensor | None
    """float (), the same summed over pairs (`num_pairs`); None without the next-sentence task."""
    mlm_correct: Tensor | None
    """int64 (), masked tokens whose best score is the label; None unless asked for."""
    nsp_correct: Tensor | None
    """int64 (), pairs told rightly; None unless asked for."""
    soft_target_loss_sum: Tensor | None = None
    """float (), see `models.lessons`, summed over the masked tokens (`num_masked`); None without a teacher."""
    cosine_loss_sum: Tensor | None = None
    """float (), likewise, summed over the real tokens (`num_tokens`)."""

    def sums(self) -> EachLoss[Tensor | None]:
        """Return the sum of each loss, None for what this model does not learn from."""
        return EachLoss(self.mlm_loss_sum, self.nsp_loss_sum, self.soft_target_loss_sum, self.cosine_loss_sum)

    def share_of_loss(self, weights: EachLoss[float], counts: EachLoss[float]) -> Tensor:
        """Return what this micro-batch adds to the loss of its update, ().

        Args:
            weights: of each loss.
            counts: over all ranks and micro-batches of the update; where one is 0 there is nothing to count.
        """
        shares = [
            weight * total / max(count, 1)
            for total, weight, count in zip(self.sums(), weights, counts, strict=True)
            if total is not None
        ]
        return torch.stack(shares).sum()

    def detached(self) -> Tensor:
        """Return the sums without their graph, (4,) in the order of `EachLoss`; 0 for what is not learnt.

        In float64 where the device has it.
        """
        wide = widest_float(self.mlm_loss_sum.device)
        zero = self.mlm_loss_sum.new_zeros((), dtype=wide)
        return torch.stack([zero if total is None else total.detach().to(wide) for total in self.sums()])


def cross_entropy_sum(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum of -log softmax(scores)[label] in natural-log units, in at least float32 whatever autocast does.

    Args:
        scores: (n, classes); n may be 0, which gives 0 and zero gradients.
        labels: int64 (n,), `IGNORED_LABEL` = counts nowhere and has no gradient.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
        return F.cross_entropy(scores, labels, ignore_index=IGNORED_LABEL, reduction="sum")


@torch.no_grad()
def count_correct(scores: Tensor, labels: Tensor) -> Tensor:
    """Count the rows whose highest score is the label's, int64 ()."""
    return (scores.argmax(dim=1) == labels).sum()
