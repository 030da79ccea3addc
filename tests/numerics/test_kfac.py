"""K-FAC in an update, against a dense computation in float64 (`tests.support.dense_kfac`)."""

import copy
import itertools
import logging

import pytest
import torch
from torch import Tensor, nn

from bert_pytorch.data.loader import Update
from bert_pytorch.optim.kfac.factors import Eigenbasis, Factors, triangle
from tests.numerics.test_packed_forms import in_rows
from tests.support.architectures import config_of, spread_model
from tests.support.dense_kfac import dense_factors, rows_of
from tests.support.errors_between import relative_error
from tests.support.kfac_updates import (
    INTERVALS,
    RATE,
    SMALL,
    UPDATES,
    V,
    dense_movements,
    joined,
    kfac_of,
    linear_names,
    matrix_of,
    movement,
    small_model,
    step_of,
    update_batches,
    whole_loss,
)
from tests.support.packed_batches import random_micro_batch
from tests.support.runs import assert_same_state

FORMS = {
    "one micro-batch": lambda batches: [joined(batches)],
    "four micro-batches": lambda batches: [joined(batches[i : i + 2]) for i in (0, 2, 4, 6)],
    "fixed rows with empty slots": lambda batches: [in_rows(joined(batches), 12)],
}


@pytest.mark.parametrize("relative", [False, True], ids=["", "in units of its mean"])
@pytest.mark.parametrize("factored", [False, True], ids=["damped together", "damped by factor"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_three_updates_are_those_of_dense_solves_from_the_gradients_of_all_tokens(
    kind: str, form: str, factored: bool, relative: bool
) -> None:
    model = small_model(kind)
    flags = {"kfac_factored_damping": factored, "kfac_relative_damping": relative}
    step = step_of(model, kfac_of(model, **flags, **INTERVALS))
    names = linear_names(model)
    assert len(names) >= 13
    assert len([name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in names]) >= 5
    limited = []
    dense = dense_movements(kind, factored=factored, relative=relative)
    for number, (wanted, was_limited) in zip(UPDATES, dense, strict=True):
        moved = movement(model, step, FORMS[form](update_batches(number, pairs=kind == "bert")), number)
        # A weight and its bias are judged together: a key's bias has no gradient but rounding.
        for name in names:
            found, right = (matrix_of(model.get_submodule(name), each, name) for each in (moved, wanted))
            assert relative_error(found, right) < 1e-9, name
        for name in moved.keys() - {f"{name}.{part}" for name in names for part in ("weight", "bias")}:
            assert relative_error(moved[name], wanted[name]) < 1e-9, name
        limited.append(was_limited)
    assert any(limited) or relative  # relative: no solution is longer than its gradient


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
        kfac.begin(step, loss_terms=4, gradient_scale=1.0)
        for name, layer in model.items():
            inputs, gradients = torch.randn(4, 3), torch.randn(4, 2)
            if step > 1 and name == "broken":
                (inputs if infinite == "input" else gradients)[1, 0] = float("inf")
            layer(inputs).backward(gradients)
        for parameter in model.parameters():  # gradients themselves are finite: those of other updates are skipped
            parameter.grad = torch.ones_like(parameter)
        with caplog.at_level(logging.WARNING):
            kfac.passes_done()
            kfac.precondition(learning_rate=0.1)
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        states.append(copy.deepcopy(kfac.state_dict()["factors"]))
    for part in ("inputs", "outputs"):
        assert torch.equal(states[2]["broken"][part], states[0]["broken"][part])
        assert not torch.equal(states[2]["sound"][part], states[1]["sound"][part])
    told = [record.message for record in caplog.records if "not finite" in record.message]
    assert len(told) == 1
    assert "broken in update 2" in told[0]
    assert kfac.failures() == 2


def test_a_decomposition_that_fails_leaves_the_eigenbasis_in_use_and_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"hard": nn.Linear(3, 2, bias=False), "easy": nn.Linear(4, 2, bias=False)})
    kfac = kfac_of(model, kfac_factor_interval=1, kfac_inv_interval=1, kfac_kl_clip=0.0)
    sound = torch.linalg.eigh

    def failing(matrix: torch.Tensor) -> object:
        if len(matrix) == 3:
            raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")
        return sound(matrix)

    solved, bases = [], []
    for step in (1, 2, 3, 4):
        monkeypatch.setattr(torch.linalg, "eigh", sound if step in (2, 4) else failing)
        kfac.begin(step, loss_terms=4, gradient_scale=1.0)
        for layer in model.values():
            layer(torch.randn(4, layer.in_features)).backward(torch.randn(4, 2))
            layer.weight.grad = torch.ones_like(layer.weight)
        kfac.passes_done()
        with caplog.at_level(logging.WARNING):
            kfac.precondition(learning_rate=0.1)
        solved.append(model["hard"].weight.grad.clone())
        bases.append(copy.deepcopy(kfac.state_dict()["bases"]))
        assert not torch.equal(model["easy"].weight.grad, torch.ones(2, 4))
    assert torch.equal(solved[0], torch.ones(2, 3))  # nothing to solve in: the true gradient
    assert "hard" not in bases[0]
    assert not torch.equal(solved[1], solved[0])
    assert torch.equal(solved[2], solved[1])
    assert_same_state(bases[2]["hard"], bases[1]["hard"])
    assert not torch.equal(bases[2]["easy"]["input_vectors"], bases[1]["easy"]["input_vectors"])
    assert not torch.equal(solved[3], solved[2])
    told = [record.message for record in caplog.records if "could not be decomposed" in record.message]
    assert len(told) == 1
    assert "hard could not be decomposed in update 1" in told[0]
    assert kfac.failures() == 2


def test_by_default_a_layer_is_solved_alike_whatever_the_size_of_its_gradients_and_none_grows() -> None:
    torch.manual_seed(0)
    inputs, gradients = torch.randn(40, 3), torch.randn(40, 2)
    solved = {}
    for relative, scale in itertools.product((None, False), (1.0, 2.0**-20)):
        layer = nn.Linear(3, 2, bias=False)
        kfac = kfac_of(nn.ModuleDict({"layer": layer}), kfac_relative_damping=relative, kfac_kl_clip=0.0)
        kfac.begin(1, loss_terms=40, gradient_scale=1.0)
        layer(inputs).backward(scale / 40 * gradients)
        kfac.passes_done()
        true = layer.weight.grad.clone()
        kfac.precondition(learning_rate=0.1)
        assert relative is False or layer.weight.grad.norm() < true.norm()
        solved[relative, scale] = layer.weight.grad / scale
    assert relative_error(solved[None, 2.0**-20], solved[None, 1.0]) < 1e-6  # powers of two: but for eigh's rounding
    assert relative_error(solved[False, 2.0**-20], solved[False, 1.0]) > 0.5


def test_a_layer_without_curvature_keeps_its_gradient_where_damping_is_relative() -> None:
    basis = Eigenbasis.of(Factors(triangle(torch.eye(3)), triangle(torch.zeros(2, 2))))
    assert basis is not None
    gradient = torch.randn(2, 3)
    assert torch.allclose(basis.solve(gradient, 1e-3, relative=True), gradient)
    assert basis.solve(gradient, 1e-3, factored=True, relative=True).norm() < gradient.norm()


@pytest.mark.parametrize("scale", [2.0**16, 3.0])
def test_loss_scales_and_the_precision_of_passes_leave_the_factors_in_float32_and_unscaled(scale: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    inputs, gradients = torch.randn(40, 3), torch.randn(40, 2) * 1e-4
    found = []
    for factor, dtype in ((1.0, torch.float32), (scale, torch.bfloat16)):
        kfac = kfac_of(nn.ModuleDict({"layer": layer}))
        kfac.begin(1, loss_terms=40, gradient_scale=factor)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = layer(inputs)
        output.backward((factor * gradients).to(dtype))
        kfac.passes_done()
        kfac.precondition(learning_rate=0.1)
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
