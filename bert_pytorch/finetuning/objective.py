"""A task's loss for the optimizer step: one sum and one count."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bert_pytorch.finetuning.batches import TaskBatch
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.runtime.device import to_device, widest_float
from bert_pytorch.tasks.task import Task
from bert_pytorch.training.objective import LossReport


class LabelledBatch(NamedTuple):
    """A `TaskBatch` as tensors."""

    packed: PackedBatch
    labels: Tensor


class LearningModel(nn.Module):
    """A model and its task: from a labelled batch to the sum of its loss."""

    def __init__(self, model: TaskModel, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, batch: LabelledBatch) -> Tensor:
        """Return the loss as a sum, (); a batch without sequences gives every parameter a zero gradient."""
        scores = self.model(batch.packed)
        with torch.autocast(scores.device.type, enabled=False):
            scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
            return self.task.loss_sum(scores, batch.labels, batch.packed)


class TaskObjective:
    """What the step asks about a task's loss."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def counts(self, batch: TaskBatch) -> Sequence[float]:
        """Return what the loss of a micro-batch is divided by."""
        assert batch.labels is not None
        return [self._task.count(batch.labels)]

    def on_device(self, batch: TaskBatch, device: torch.device) -> LabelledBatch:
        """Move the batch and its labels."""
        assert batch.labels is not None
        return LabelledBatch(
            PackedBatch.from_numpy(batch.inputs, device), to_device(torch.from_numpy(batch.labels), device)
        )

    def share_of_loss(self, terms: Tensor, counts: Sequence[float]) -> Tensor:
        """Divide by the count of the whole update."""
        return terms / (counts[0] or 1)

    def sums(self, terms: Tensor) -> Tensor:
        """Return (1,)."""
        return terms.detach().to(widest_float(terms.device)).reshape(1)

    def report(self, means: Sequence[float], counts: Sequence[float]) -> LossReport:
        """There is one loss."""
        return LossReport(means[0], {})
