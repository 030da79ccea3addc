"""K-FAC in an update, against a dense computation in float64 (`tests.support.dense_kfac`)."""

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bert_pytorch.data.loader import Update
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.optim.kfac.config import KfacConfig, build_preconditioner
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.training.objective import PretrainingObjective
from bert_pytorch.training.step import OptimizerStep
from tests.numerics.test_packed_forms import in_rows
from tests.support.architectures import config_of, spread_model
from tests.support.dense_kfac import dense_factors, dense_solution, kl_factor, rows_of
from tests.support.errors_between import relative_error
from tests.support.packed_batches import random_micro_batch

V = 61
WEIGHTS = EachLoss(mlm=1.0, nsp=1.0, soft_targets=0.0, cosine=0.0)
RATE = 0.5
SMALL = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}
"""So small that the matrix over all weights of a layer, (8 · 13)², is held and solved at once."""


def small_model(kind: str) -> PretrainingModel:
    return spread_model(config_of(kind, **SMALL), V).double().train()


def step_of(model: nn.Module, preconditioner: Preconditioner | None) -> OptimizerStep:
    """Make a step of plain gradient descent without clipping: what moved is the gradient."""
    precision = choose_precision(PrecisionConfig(precision="fp32"), torch.device("cpu"))
    return OptimizerStep(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        world=World(),
        device=torch.device("cpu"),
        precision=precision,
        scaler=precision.gradient_scaler(),
        max_grad_norm=0.0,
        objective=PretrainingObjective(WEIGHTS),
        flops_of=lambda batch: 0,
        seed=0,
        stop_requested=lambda: False,
        preconditioner=preconditioner,
    )


def kfac_of(model: nn.Module, **changes: Any) -> Preconditioner:
    preconditioner = build_preconditioner(KfacConfig(kfac=True, **changes), model, World())
    assert preconditioner is not None
    return preconditioner


def whole_loss(model: PretrainingModel, batches: list[MicroBatch]) -> Tensor:
    """Return the update's loss from its definition: each loss's sum over all batches, divided by its count."""
    terms = [model(PackedBatch.from_numpy(batch, "cpu")) for batch in batches]
    loss = sum(term.mlm_loss_sum for term in terms) / sum(batch.num_masked for batch in batches)
    pairs = sum(batch.num_pairs for batch in batches)
    return loss + sum(term.nsp_loss_sum for term in terms) / pairs if pairs else loss


def linear_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def matrix_of(layer: nn.Linear, tensors: dict[str, Tensor], name: str) -> Tensor:
    weight = tensors[f"{name}.weight"]
    return weight if layer.bias is None else torch.cat([weight, tensors[f"{name}.bias"][:, None]], 1)


def movement(model: nn.Module, step: OptimizerStep, batches: list[MicroBatch], number: int) -> dict[str, Tensor]:
    """Take an update and return what it moved, divided by the learning rate."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    step(Update(batches, 0, 0, 1), step=number, learning_rate=RATE)
    return {name: (before[name] - value.detach()) / RATE for name, value in model.named_parameters()}


FORMS = {
    "one micro-batch": lambda batches: [joined(batches)],
    "four micro-batches": lambda batches: batches,
    "fixed rows with empty slots": lambda batches: [in_rows(joined(batches), 12)],
}


def joined(batches: list[MicroBatch]) -> MicroBatch:
    """Lay packed micro-batches end to end."""
    starts = np.cumsum([0, *(len(batch.input_ids) for batch in batches)])
    lengths = [length for batch in batches for length in np.diff(batch.cu_seqlens)]
    names = ("input_ids", "token_type_ids", "position_ids", "labels")
    parts = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}
    masked = [batch.masked_positions + start for batch, start in zip(batches, starts[:-1], strict=True)]
    pairs = [batch.next_sentence_labels for batch in batches if batch.next_sentence_labels is not None]
    return batches[0]._replace(
        **parts,
        cu_seqlens=np.cumsum([0, *lengths]).astype(np.int32),
        masked_positions=np.concatenate(masked),
        next_sentence_labels=np.concatenate(pairs) if pairs else None,
    )


def update_batches(seed: int, *, pairs: bool) -> list[MicroBatch]:
    lengths = [(5, 17), (9,), (3, 12, 4), (11,)]
    batches = [random_micro_batch(each, V, pairs=pairs, seed=10 * seed + i) for i, each in enumerate(lengths)]
    return [without_masked_firsts(batch) for batch in batches]


def without_masked_firsts(batch: MicroBatch) -> MicroBatch:
    """[CLS] is never masked; a pruned last layer would compute it twice, once for each loss."""
    kept = ~np.isin(batch.masked_positions, batch.cu_seqlens)
    return batch._replace(masked_positions=batch.masked_positions[kept], labels=batch.labels[kept])


@pytest.mark.parametrize("factored", [False, True], ids=["damped together", "damped by factor"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_three_updates_are_those_of_dense_solves_from_the_gradients_of_all_tokens(
    kind: str, form: str, factored: bool
) -> None:
    model = small_model(kind)
    pairs = kind == "bert"
    kfac = kfac_of(
        model,
        kfac_inv_interval=2,
        kfac_stat_decay=0.7,
        kfac_damping="0.02,3:0.05",
        kfac_kl_clip=0.01,
        kfac_factored_damping=factored,
    )
    step = step_of(model, kfac)
    names = linear_names(model)
    assert len(names) >= 13
    averages: dict[str, tuple[Tensor, Tensor]] = {}
    in_use: dict[str, tuple[Tensor, Tensor]] = {}
    clipped = []
    for number in (1, 2, 3):
        batches = update_batches(number, pairs=pairs)
        terms = sum(batch.num_masked for batch in batches)
        reference = copy.deepcopy(model)
        rows = rows_of(reference, names, lambda model=reference, batches=batches: whole_loss(model, [joined(batches)]))
        parameters = dict(reference.named_parameters())
        gradients = torch.autograd.grad(whole_loss(reference, [joined(batches)]), list(parameters.values()))
        true = dict(zip(parameters, gradients, strict=True))
        for name in names:
            new = dense_factors(rows[name], terms)
            old = averages.get(name, new)
            averages[name] = (0.7 * old[0] + 0.3 * new[0], 0.7 * old[1] + 0.3 * new[1])
        if number in (1, 3):  # every second update, the first one among them
            in_use = dict(averages)
        damping = 0.05 if number == 3 else 0.02
        matrices = {name: matrix_of(model.get_submodule(name), true, name) for name in names}
        solved = {name: dense_solution(matrices[name], *in_use[name], damping, factored=factored) for name in names}
        scale = kl_factor(solved, matrices, RATE, 0.01)
        clipped.append(scale < 1)

        moved = movement(model, step, FORMS[form](batches), number)

        for name in names:
            found = matrix_of(model.get_submodule(name), moved, name)
            assert relative_error(found, scale * solved[name]) < 1e-9, name
        untouched = [name for name in true if name.rpartition(".")[0] not in names]
        assert len(untouched) >= 5
        for name in untouched:
            assert relative_error(moved[name], true[name]) < 1e-9, name
    assert any(clipped)


def test_in_float32_the_error_is_within_64_roundings_times_the_condition_of_the_damped_curvature() -> None:
    """A backward stable solve errs, norm-wise, by a small multiple of ε κ; so do factors and gradients in float32."""
    wide, damping = small_model("bert"), 0.02
    narrow = copy.deepcopy(wide).float()
    batches = update_batches(1, pairs=True)
    names = linear_names(wide)
    rows = rows_of(wide, names, lambda: whole_loss(wide, batches))
    found, wanted = (
        movement(model, step_of(model, kfac_of(model, kfac_damping=damping, kfac_kl_clip=0.0)), batches, 1)
        for model in (narrow, wide)
    )
    for name in names:
        a, g = dense_factors(rows[name], sum(batch.num_masked for batch in batches))
        condition = float((torch.linalg.eigvalsh(a)[-1] * torch.linalg.eigvalsh(g)[-1] + damping) / damping)
        layer = wide.get_submodule(name)
        right, ours = matrix_of(layer, wanted, name), matrix_of(layer, found, name).double()
        assert (ours - right).norm() / right.norm() < 64 * torch.finfo(torch.float32).eps * condition, name


def test_recomputed_activations_give_the_same_update() -> None:
    moved = []
    for recomputed in (False, True):
        model = small_model("bert")
        model.checkpoint_activations = recomputed
        moved.append(movement(model, step_of(model, kfac_of(model)), update_batches(1, pairs=True), 1))
    assert all(relative_error(moved[1][name], moved[0][name]) < 1e-12 for name in linear_names_with_weights(moved[0]))


def linear_names_with_weights(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name in tensors if name.endswith("dense.weight")]


def test_skipped_layers_keep_their_true_gradient() -> None:
    model = small_model("bert")
    plain = copy.deepcopy(model)
    kfac = kfac_of(model, kfac_skip_layers=(r"cls\.", r"attention\.self"), kfac_kl_clip=0.0)
    moved = movement(model, step_of(model, kfac), update_batches(1, pairs=True), 1)
    true = movement(plain, step_of(plain, None), update_batches(1, pairs=True), 1)
    left_alone = {name for name in true if relative_error(moved[name], true[name]) < 1e-12}
    skipped = {name for name in true if name.startswith("cls.") or ".self." in name}
    skipped = {name for name in skipped if not name.endswith("key.bias")}  # its gradient is 0 but for rounding
    assert skipped <= left_alone
    assert not any(name.endswith("dense.weight") and ".encoder." in name for name in left_alone)


def test_sampled_rows_estimate_the_factors_and_all_rows_are_the_limit() -> None:
    batches = [random_micro_batch((60, 70, 50), V, seed=3)]
    updates = {}
    for rows in (None, 1000, 90):
        model = spread_model(config_of("bert", **SMALL, max_position_embeddings=128), V).double().train()
        kfac = kfac_of(model, kfac_max_rows=rows, kfac_damping=0.5, kfac_kl_clip=0.0)
        updates[rows] = movement(model, step_of(model, kfac), batches, 1)
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(updates[1000][name], updates[None][name])
    assert 0 < relative_error(updates[90][name], updates[None][name]) < 0.3


@pytest.mark.parametrize("infinite", ["input", "gradient"])
def test_statistics_that_are_not_finite_stay_out_and_are_told_once(
    infinite: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"broken": nn.Linear(3, 2), "sound": nn.Linear(3, 2)})
    kfac = kfac_of(model, kfac_inv_interval=1)
    states = []
    for step in (1, 2, 3):
        kfac.begin(step)
        for name, layer in model.items():
            inputs, gradients = torch.randn(4, 3), torch.randn(4, 2)
            if step > 1 and name == "broken":
                (inputs if infinite == "input" else gradients)[1, 0] = float("inf")
            layer(inputs).backward(gradients)
        for parameter in model.parameters():  # gradients themselves are finite: those of other updates are skipped
            parameter.grad = torch.ones_like(parameter)
        with caplog.at_level(logging.WARNING):
            kfac.precondition(learning_rate=0.1, loss_terms=4, gradient_scale=1.0)
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        states.append(copy.deepcopy(kfac.state_dict()["factors"]))
    for part in ("inputs", "outputs"):
        assert torch.equal(states[2]["broken"][part], states[0]["broken"][part])
        assert not torch.equal(states[2]["sound"][part], states[1]["sound"][part])
    told = [record.message for record in caplog.records if "not finite" in record.message]
    assert len(told) == 1
    assert "broken in update 2" in told[0]


@pytest.mark.parametrize("scale", [2.0**16, 3.0])
def test_loss_scales_and_the_precision_of_passes_leave_the_factors_in_float32_and_unscaled(scale: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    inputs, gradients = torch.randn(40, 3), torch.randn(40, 2) * 1e-4
    found = []
    for factor, dtype in ((1.0, torch.float32), (scale, torch.bfloat16)):
        kfac = kfac_of(nn.ModuleDict({"layer": layer}))
        kfac.begin(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = layer(inputs)
        output.backward((factor * gradients).to(dtype))
        kfac.precondition(learning_rate=0.1, loss_terms=40, gradient_scale=factor)
        found.append(kfac.state_dict()["factors"]["layer"])
    for part in ("inputs", "outputs"):
        assert found[1][part].dtype == torch.float32
        assert relative_error(found[1][part], found[0][part]) < 2**-7  # bfloat16 has 8 bits of mantissa


def test_an_update_whose_gradients_are_not_finite_leaves_the_state_as_it_was() -> None:
    model = small_model("bert")
    kfac = kfac_of(model)
    step = step_of(model, kfac)
    movement(model, step, update_batches(1, pairs=True), 1)
    before = copy.deepcopy(kfac.state_dict())
    weight = model.bert.encoder.layer[0].output.dense.weight
    handle = weight.register_hook(lambda gradient: gradient * float("inf"))
    outcome = step(Update(update_batches(2, pairs=True), 0, 0, 1), step=2, learning_rate=RATE)
    handle.remove()
    assert outcome.skipped
    for kind, layers in kfac.state_dict().items():
        for name, parts in layers.items():
            assert all(torch.equal(parts[part], before[kind][name][part]) for part in parts)
