"""Distillation against transformers' DistilBERT and BERT, with the losses written out from the papers.

Hinton et al. 2015 (section 2: soft targets), Sanh et al. 2019 (section 3: with the masked-LM and the cosine loss).
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from bert_pytorch.data.batch_making import as_stand_in
from bert_pytorch.data.loader import Update
from bert_pytorch.interop.huggingface import export_huggingface, their_tensors
from bert_pytorch.models.distillation import TaughtModel, Teacher
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss, LossTerms
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.training.objective import PretrainingObjective
from bert_pytorch.training.step import OptimizerStep
from tests.numerics.test_packed_forms import in_rows
from tests.support.architectures import config_of, spread_model
from tests.support.errors_between import largest_error, relative_error
from tests.support.packed_batches import PaddedBatch, padded, random_micro_batch
from tests.support.vocabularies import small_vocabulary

VOCABULARY = small_vocabulary()
V = len(VOCABULARY.tokens)
LENGTHS = (5, 17, 9, 1, 33, 12)
STUDENT = config_of("distilbert")
TEACHER = config_of("bert_without_pairs", num_hidden_layers=3)
AUTHORS = EachLoss(mlm=2.0, nsp=1.0, soft_targets=5.0, cosine=1.0)
WITHOUT_COSINE = AUTHORS._replace(cosine=0.0)
WITHOUT_SOFT_TARGETS = AUTHORS._replace(soft_targets=0.0)


def pair(dtype: torch.dtype) -> tuple[PretrainingModel, PretrainingModel]:
    """Return a student and a teacher of different weights."""
    teacher = spread_model(TEACHER, V)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.mul_(1.1)
    return spread_model(STUDENT, V).to(dtype), teacher.to(dtype)


def counts_of(batch: MicroBatch) -> EachLoss[float]:
    return EachLoss(batch.num_masked, 0, batch.num_masked, batch.num_tokens)


def opened(model: PretrainingModel, folder: Path) -> nn.Module:
    """Open what we export in transformers, in float64."""
    export_huggingface(folder, model.state_dict(), model.config, VOCABULARY)
    theirs: nn.Module = transformers.AutoModelForMaskedLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float64
    )
    return theirs


def dense_losses(student: nn.Module, teacher: nn.Module, rows: PaddedBatch, temperature: float) -> EachLoss[Tensor]:
    """Compute the mean of each loss on padded rows, scores of every token included."""
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, "output_hidden_states": True}
    learnt = student(**inputs)
    with torch.no_grad():
        taught = teacher(**inputs, token_type_ids=rows.token_type_ids)
    masked = rows.labels >= 0
    p, q = ((model.logits[masked] / temperature).softmax(1) for model in (taught, learnt))
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    ours, theirs = (model.hidden_states[-1][rows.real] for model in (learnt, taught))
    same = torch.ones(len(ours), dtype=ours.dtype)
    return EachLoss(
        mlm=F.cross_entropy(learnt.logits[masked], rows.labels[masked]),
        nsp=torch.zeros((), dtype=torch.float64),
        soft_targets=temperature**2 * divergence,
        cosine=F.cosine_embedding_loss(ours, theirs, same),
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance", "temperature", "weights"),
    [
        (torch.float64, 1e-9, 2.0, AUTHORS),
        (torch.float64, 1e-9, 3.5, WITHOUT_COSINE),
        (torch.float64, 1e-9, 1.0, WITHOUT_SOFT_TARGETS),
        (torch.float32, 1e-4, 2.0, AUTHORS),
    ],
    ids=["all", "soft targets", "cosine", "all in float32"],
)
def test_losses_and_gradients_of_the_student_are_those_of_a_dense_computation_in_transformers(
    dtype: torch.dtype, tolerance: float, temperature: float, weights: EachLoss[float], tmp_path: Path
) -> None:
    student, teacher = pair(dtype)
    theirs, their_teacher = opened(student, tmp_path / "student"), opened(teacher, tmp_path / "teacher").eval()
    assert type(theirs).__name__ == "DistilBertForMaskedLM"
    assert type(their_teacher).__name__ == "BertForMaskedLM"
    batch = random_micro_batch(LENGTHS, V, pairs=False)
    # The padding token stands in no text; transformers gives its embedding no gradient.
    batch = batch._replace(input_ids=np.maximum(batch.input_ids, 1))
    packed = PackedBatch.from_numpy(batch, "cpu")

    taught = TaughtModel(student.train(), Teacher(teacher, temperature=temperature, weights=weights))
    terms: LossTerms = taught(packed)
    counts = counts_of(batch)
    terms.share_of_loss(weights, counts).backward()

    means = dense_losses(theirs.train(), their_teacher, padded(packed), temperature)
    sum((weight * mean for weight, mean in zip(weights, means, strict=True)), torch.zeros(())).backward()
    for name, weight in weights._asdict().items():
        found = getattr(terms.sums(), name)
        if name == "nsp" or weight == 0:
            assert found is None
        else:
            assert relative_error(found.detach() / getattr(counts, name), getattr(means, name).detach()) < tolerance
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert largest_error(their_tensors(gradients, STUDENT, VOCABULARY), wanted) < tolerance


FORMS = {
    "one micro-batch": lambda one, other: [joined(one, other)],
    "two": lambda one, other: [one, other],
    "two, and one that stands in": lambda one, other: [one, as_stand_in(random_micro_batch((7, 3), V)), other],
    "one in fixed rows": lambda one, other: [in_rows(joined(one, other), 3)],
    "two in fixed rows": lambda one, other: [in_rows(one, 1), in_rows(other, 12)],
}


@pytest.mark.parametrize("form", FORMS)
def test_an_update_takes_the_gradient_of_the_dense_computation_however_it_is_cut(form: str, tmp_path: Path) -> None:
    student, teacher = pair(torch.float64)
    theirs, their_teacher = opened(student, tmp_path / "student"), opened(teacher, tmp_path / "teacher").eval()
    one = random_micro_batch((5, 17, 9), V, pairs=False, seed=1)
    other = random_micro_batch((33, 1, 12, 1), V, pairs=False, seed=2, masked_fraction=0.05)
    one, other = (part._replace(input_ids=np.maximum(part.input_ids, 1)) for part in (one, other))

    means = dense_losses(theirs.train(), their_teacher, padded(PackedBatch.from_numpy(joined(one, other), "cpu")), 2.0)
    loss = torch.stack([weight * mean for weight, mean in zip(AUTHORS, means, strict=True)]).sum()
    loss.backward()

    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    outcome = optimizer_step(student, teacher)(Update(FORMS[form](one, other), 0, 0, 7), step=1, learning_rate=1.0)
    moved = {name: before[name] - tensor for name, tensor in student.state_dict().items()}  # SGD: by the gradient

    assert outcome.loss == pytest.approx(loss.item(), rel=1e-12)
    found = tuple(outcome.losses[name] for name in ("mlm_loss", "soft_target_loss", "cosine_loss"))
    assert found == pytest.approx((means.mlm.item(), means.soft_targets.item(), means.cosine.item()), rel=1e-12)
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert largest_error(their_tensors(moved, STUDENT, VOCABULARY), wanted) < 1e-9


def optimizer_step(student: PretrainingModel, teacher: PretrainingModel) -> OptimizerStep:
    """Make the step of a run of one rank, with plain gradient descent."""
    precision = choose_precision(PrecisionConfig(precision="fp32"), torch.device("cpu"))
    return OptimizerStep(
        TaughtModel(student, Teacher(teacher, temperature=2.0, weights=AUTHORS)),
        torch.optim.SGD(student.parameters(), lr=1.0),
        world=World(),
        device=torch.device("cpu"),
        precision=precision,
        scaler=precision.gradient_scaler(),
        max_grad_norm=0.0,
        objective=PretrainingObjective(AUTHORS),
        flops_of=lambda batch: 0,
        seed=0,
        stop_requested=lambda: False,
    )


def joined(one: MicroBatch, other: MicroBatch) -> MicroBatch:
    """Lay two packed micro-batches end to end."""
    tokens = len(one.input_ids)
    return one._replace(
        input_ids=np.concatenate([one.input_ids, other.input_ids]),
        token_type_ids=np.concatenate([one.token_type_ids, other.token_type_ids]),
        position_ids=np.concatenate([one.position_ids, other.position_ids]),
        cu_seqlens=np.concatenate([one.cu_seqlens, other.cu_seqlens[1:] + tokens]).astype(np.int32),
        masked_positions=np.concatenate([one.masked_positions, other.masked_positions + tokens]),
        labels=np.concatenate([one.labels, other.labels]),
    )


def test_the_teacher_has_no_gradient_no_dropout_and_is_no_part_of_the_student() -> None:
    student, _ = pair(torch.float32)
    teacher = spread_model(config_of("bert_without_pairs", hidden_dropout_prob=0.5), V).train()
    taught = TaughtModel(student, Teacher(teacher, temperature=2.0, weights=AUTHORS)).train()
    packed = PackedBatch.from_numpy(random_micro_batch(LENGTHS, V, pairs=False), "cpu")
    first, second = taught(packed), taught(packed)
    assert torch.equal(first.cosine_loss_sum, second.cosine_loss_sum)  # dropout would differ
    first.share_of_loss(AUTHORS, EachLoss(1, 1, 1, 1)).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert [id(parameter) for parameter in taught.parameters()] == [id(parameter) for parameter in student.parameters()]


def test_a_teacher_with_the_students_weights_has_nothing_to_teach() -> None:
    student, _ = pair(torch.float64)
    twin, _ = pair(torch.float64)
    taught = TaughtModel(student, Teacher(twin, temperature=2.0, weights=AUTHORS))
    terms = taught(PackedBatch.from_numpy(random_micro_batch(LENGTHS, V, pairs=False), "cpu"))
    assert abs(terms.soft_target_loss_sum.item()) < 1e-12
    assert abs(terms.cosine_loss_sum.item()) < 1e-12


@pytest.mark.parametrize("weights", [AUTHORS, WITHOUT_COSINE], ids=["all", "soft"])
def test_a_batch_without_masked_tokens_gives_every_parameter_a_gradient(weights: EachLoss[float]) -> None:
    student, teacher = pair(torch.float32)
    taught = TaughtModel(student, Teacher(teacher, temperature=2.0, weights=weights))
    batch = random_micro_batch(LENGTHS, V, pairs=False, masked_fraction=0.0)
    taught(PackedBatch.from_numpy(batch, "cpu")).share_of_loss(weights, counts_of(batch)).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in student.parameters())
