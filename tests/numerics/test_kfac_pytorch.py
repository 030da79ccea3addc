"""`--kfac_backend kfac-pytorch`, where that project is importable (PYTHONPATH=FOLDER pytest …)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bert_pytorch.errors import InputError
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.optim.kfac.kfac_pytorch import kfac_pytorch_problem
from bert_pytorch.records import MicroBatch
from tests.support.dense_kfac import dense_solution, kl_factor, rows_of
from tests.support.errors_between import relative_error
from tests.support.kfac_updates import (
    INTERVALS,
    RATE,
    UPDATES,
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

PROBLEM = kfac_pytorch_problem()
pytestmark = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
BACKEND: dict[str, Any] = {"kfac_backend": "kfac-pytorch"}


def loss_of_terms(model: PretrainingModel, batch: MicroBatch, whole: list[MicroBatch]) -> Tensor:
    """Return what a micro-batch adds to the loss of the update, times the update's masked tokens."""
    masked, pairs = sum(each.num_masked for each in whole), sum(each.num_pairs for each in whole)
    terms = model(PackedBatch.from_numpy(batch, "cpu"))
    return masked * (terms.mlm_loss_sum / masked + (terms.nsp_loss_sum / pairs if pairs else 0))


def their_factors(model: PretrainingModel, batches: list[MicroBatch], name: str) -> list[Tensor]:
    """Return A and G as means over all rows of a micro-batch, then over micro-batches."""
    rows = [
        rows_of(model, [name], lambda batch=batch: loss_of_terms(model, batch, batches), every=True)[name]
        for batch in batches
    ]
    return [torch.stack([each[part].T @ each[part] / len(each[part]) for each in rows]).mean(0) for part in (0, 1)]


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_updates_are_dense_solves_with_that_projects_way_of_counting(kind: str) -> None:
    """Decompositions are in float32 there whatever the model's dtype."""
    model = small_model(kind)
    step = step_of(model, kfac_of(model, **BACKEND, **INTERVALS))
    names = linear_names(model)
    averages = {name: [torch.eye(size, dtype=torch.float64) for size in shape] for name, shape in shapes(model).items()}
    in_use: dict[str, list[Tensor]] = {}
    for number in UPDATES:
        parts = update_batches(number, pairs=kind == "bert")
        batches = [joined(parts[:3]), joined(parts[3:])]
        for name in names:
            new = their_factors(model, batches, name)
            averages[name] = [0.7 * old + 0.3 * fresh for old, fresh in zip(averages[name], new, strict=True)]
        if number in (1, 3):
            in_use = dict(averages)
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad(whole_loss(model, batches), list(parameters.values()))
        true = dict(zip(parameters, gradients, strict=True))
        matrices = {name: matrix_of(model.get_submodule(name), true, name) for name in names}
        damping = 0.05 if number == 3 else 0.02
        solved = {name: dense_solution(matrices[name], *in_use[name], damping, factored=False) for name in names}
        scale = kl_factor(solved, matrices, RATE, 0.01)
        moved = movement(model, step, batches, number)
        for name in names:
            found = matrix_of(model.get_submodule(name), moved, name)
            assert relative_error(found, scale * solved[name]) < 1e-4, name


def shapes(model: PretrainingModel) -> dict[str, tuple[int, int]]:
    """Return inputs, the bias's constant among them, and outputs of each layer."""
    layers = {name: model.get_submodule(name) for name in linear_names(model)}
    return {name: (layer.in_features + (layer.bias is not None), layer.out_features) for name, layer in layers.items()}


def test_recomputed_activations_and_skipped_layers_are_as_with_our_own() -> None:
    moved = []
    for recomputed in (False, True):
        model = small_model("bert")
        model.checkpoint_activations = recomputed
        kfac = kfac_of(model, **BACKEND, kfac_skip_layers=(r"cls[.]",), kfac_kl_clip=0.0)
        moved.append(movement(model, step_of(model, kfac), update_batches(1, pairs=True), 1))
    model = small_model("bert")
    true = movement(model, step_of(model, None), update_batches(1, pairs=True), 1)
    solved, skipped = "bert.encoder.layer.0.output.dense.weight", "cls.predictions.transform.dense.weight"
    assert relative_error(moved[1][solved], moved[0][solved]) < 1e-6
    assert relative_error(moved[0][solved], true[solved]) > 0.01
    assert relative_error(moved[0][skipped], true[skipped]) < 1e-12


def test_a_state_saved_before_a_decomposition_continues_and_others_are_refused(tmp_path: Path) -> None:
    flags = {**BACKEND, "kfac_inv_interval": 2}
    model = small_model("bert")
    kfac = kfac_of(model, **flags)
    step = step_of(model, kfac)
    for number in (1, 2):
        movement(model, step, update_batches(number, pairs=True), number)
    torch.save(kfac.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = small_model("bert")
    again.load_state_dict(model.state_dict())
    continued = kfac_of(again, **flags)
    continued.load_state_dict(state, "state.pt")
    batches = update_batches(3, pairs=True)
    wanted, found = movement(model, step, batches, 3), movement(again, step_of(again, continued), batches, 3)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for flags, theirs in ((BACKEND, kfac_of(model).state_dict()), ({}, state)):
        with pytest.raises(InputError, match=r"state[.]pt: its state of K-FAC .* --kfac_backend"):
            kfac_of(model, **flags).load_state_dict(theirs, "state.pt")
