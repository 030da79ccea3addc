"""What an update minimises: losses as sums, each divided by its count over all ranks and micro-batches.

The step knows no task: an objective says what is counted in a micro-batch and how its sums become a loss.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss, LossTerms
from bert_pytorch.records import MicroBatch


class LossReport(NamedTuple):
    """What an update's losses came to."""

    loss: float
    """What training minimises."""
    each: dict[str, float | None]
    """The losses it is made of, under their names in the run's rows of metrics; empty where it is one."""


class Objective(Protocol):
    """Sums, counts and their names; k losses."""

    def counts(self, batch: Any) -> Sequence[float]:
        """Return what each loss of a micro-batch is divided by once it is added over all, k numbers on the host."""

    def on_device(self, batch: Any, device: torch.device) -> Any:
        """Return a micro-batch as the model takes it; the host does not wait for the copy."""

    def share_of_loss(self, terms: Any, counts: Sequence[float]) -> Tensor:
        """Return what a micro-batch adds to the loss of its update, ().

        Args:
            terms: what the model returned.
            counts: of the whole update.
        """

    def sums(self, terms: Any) -> Tensor:
        """Return the sums without their graph, (k,), in the widest float of the device."""

    def report(self, means: Sequence[float], counts: Sequence[float]) -> LossReport:
        """Return the update's loss from the mean of each, and the counts that they were divided by."""


class PretrainingObjective:
    """Masked tokens, pairs, and what a teacher adds (`models.losses`)."""

    def __init__(self, weights: EachLoss[float]) -> None:
        self._weights = weights

    def counts(self, batch: MicroBatch) -> EachLoss[float]:
        """Return masked tokens, pairs and real tokens, each for the losses that are means over it."""
        masked = batch.num_masked
        return EachLoss(mlm=masked, nsp=batch.num_pairs, soft_targets=masked, cosine=batch.num_tokens)

    def on_device(self, batch: MicroBatch, device: torch.device) -> PackedBatch:
        """Return the batch as tensors."""
        return PackedBatch.from_numpy(batch, device)

    def share_of_loss(self, terms: LossTerms, counts: Sequence[float]) -> Tensor:
        """Weigh the means and add them up."""
        return terms.share_of_loss(self._weights, EachLoss(*counts))

    def sums(self, terms: LossTerms) -> Tensor:
        """Return (4,) in the order of `EachLoss`."""
        return terms.detached()

    def report(self, means: Sequence[float], counts: Sequence[float]) -> LossReport:
        """Name each loss as `TrainRow` does; None for what is not learnt."""
        mean, weights = EachLoss(*means), self._weights
        return LossReport(
            loss=sum(weight * value for weight, value in zip(weights, mean, strict=True)),
            each={
                "mlm_loss": mean.mlm,
                "nsp_loss": mean.nsp if EachLoss(*counts).nsp else None,
                "soft_target_loss": mean.soft_targets if weights.soft_targets else None,
                "cosine_loss": mean.cosine if weights.cosine else None,
            },
        )
