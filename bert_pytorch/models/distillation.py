"""Learning from a teacher: its configuration, the frozen teacher, and a student that is taught batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from bert_pytorch.config.settings import Settings
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.lessons import Lesson, softened
from bert_pytorch.models.losses import PLAIN, EachLoss, LossTerms
from bert_pytorch.models.pretraining import PretrainingModel


class DistillationConfig(Settings):
    """The teacher, and what each loss counts for; the defaults are those that DistilBERT's authors published.

    (The training command in huggingface/transformers, examples/research_projects/distillation/README.md.)
    """

    teacher: Path | None = None
    """Learn from this model as well as from the labels: a ckpt_N.pt, a run's output folder, a Hugging Face folder, or
    the hub's name of a model (owner/name).  It needs a masked-LM head and the corpus's vocabulary."""
    init_from_teacher_layers: bool = False
    """Begin from the teacher's embeddings, head and evenly spread layers: for 6 of 12 the 1st, 3rd, 5th, 8th, 10th and
    12th, as DistilBERT's authors chose."""
    distillation_temperature: float = Field(2.0, gt=0)
    """Scores of teacher and student are divided by it before their softmax."""
    distillation_soft_weight: float = Field(5.0, ge=0)
    """With a teacher: weight of the divergence from its predictions for masked tokens."""
    distillation_mlm_weight: float = Field(2.0, ge=0)
    """With a teacher: weight of the masked-LM loss."""
    distillation_cosine_weight: float = Field(1.0, ge=0)
    """With a teacher: weight of 1 - cosine between the last hidden states of both, over all tokens.  0 allows a student
    of another width, and is faster: the last layer is computed for masked tokens only."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "teacher_name": "--teacher",
        "temperature": "--distillation_temperature",
        "alpha_ce": "--distillation_soft_weight",
        "alpha_mlm": "--distillation_mlm_weight",
        "alpha_cos": "--distillation_cosine_weight",
        "student_config": "--model_config_file",
    }

    def combination_problems(self) -> Iterator[str]:
        """Say what is missing or contradictory."""
        yield from super().combination_problems()
        if self.teacher is None and self.init_from_teacher_layers:
            yield "--teacher is missing: --init_from_teacher_layers takes the first weights from it."
        if self.teacher is not None and not (self.distillation_soft_weight or self.distillation_cosine_weight):
            yield (
                "--distillation_soft_weight and --distillation_cosine_weight are both 0, so that nothing would be "
                "learnt from --teacher; remove it, or give one of them."
            )

    def loss_weights(self) -> EachLoss[float]:
        """Return what each loss counts for."""
        if self.teacher is None:
            return PLAIN
        return EachLoss(
            mlm=self.distillation_mlm_weight,
            nsp=1.0,
            soft_targets=self.distillation_soft_weight,
            cosine=self.distillation_cosine_weight,
        )


class Teacher:
    """A frozen model; no Module, so that a student's parameters, checkpoints and exports never hold it."""

    def __init__(self, model: PretrainingModel, *, temperature: float, weights: EachLoss[float]) -> None:
        """Freeze `model`, which is on the student's device.

        Args:
            model: with a masked-LM head over the student's vocabulary.
            temperature: at which predictions are compared.
            weights: of the losses; what has none is not computed.
        """
        self.config = model.config
        self._model = model.eval().requires_grad_(requires_grad=False)
        self._temperature = temperature
        self._weights = weights

    @torch.no_grad()
    def lesson(self, batch: PackedBatch) -> Lesson:
        """Say what the teacher makes of a batch."""
        everywhere = self._weights.cosine > 0
        hidden = self._model.encode(batch, None if everywhere else batch.masked_positions)
        log_probabilities = None
        if self._weights.soft_targets > 0:
            masked = hidden.index_select(0, batch.masked_positions) if everywhere else hidden
            log_probabilities = softened(self._model.mlm_logits(masked), self._temperature)
        return Lesson(self._temperature, log_probabilities, hidden if everywhere else None)


class TaughtModel(nn.Module):
    """A student in the place of a model that learns alone: same call, same parameters, losses against the teacher."""

    def __init__(self, student: PretrainingModel, teacher: Teacher) -> None:
        super().__init__()
        self.student = student
        self._teacher = teacher

    def forward(self, batch: PackedBatch) -> LossTerms:
        """Return the student's losses as sums."""
        terms: LossTerms = self.student(batch, lesson=self._teacher.lesson(batch))
        return terms
