"""Losses as sums, for training to divide by the counts over all ranks and micro-batches."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.records import IGNORED_LABEL


class LossTerms(NamedTuple):
    """Sums of one micro-batch on one rank; the counts are `num_masked` and `num_pairs` of the `MicroBatch`."""

    mlm_loss_sum: Tensor
    """float (), natural-log cross-entropy summed over the masked tokens."""
    nsp_loss_sum: Tensor | None
    """float (), the same summed over pairs; None without the next-sentence task."""
    mlm_correct: Tensor | None
    """int64 (), masked tokens whose best score is the label; None unless asked for."""
    nsp_correct: Tensor | None
    """int64 (), pairs told rightly; None unless asked for."""


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
