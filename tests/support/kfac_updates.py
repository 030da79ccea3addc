"""Small updates with K-FAC in float64: ours through `OptimizerStep`, and what the dense computation says of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
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
from tests.support.architectures import config_of, spread_model
from tests.support.dense_kfac import dense_factors, dense_solution, kl_factor, rows_of
from tests.support.packed_batches import random_micro_batch

V = 61
WEIGHTS = EachLoss(mlm=1.0, nsp=1.0, soft_targets=0.0, cosine=0.0)
RATE = 0.5
SMALL = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}
"""So small that the matrix over all weights of a layer, (8 · 13)², is held and solved at once."""
LENGTHS = ((5, 17), (9,), (3, 12, 4), (11,), (7,), (20, 3), (6,), (14,))
UPDATES = (1, 2, 3)
INTERVALS = {"kfac_inv_interval": 2, "kfac_stat_decay": 0.7, "kfac_damping": "0.02,3:0.05", "kfac_kl_clip": 0.01}
"""Flags of what `dense_movements` computes."""


def small_model(kind: str) -> PretrainingModel:
    """Build a model in float64; `bert` has biases and pairs, `modernbert` neither."""
    return spread_model(config_of(kind, **SMALL), V).double().train()


def step_of(model: nn.Module, preconditioner: Preconditioner | None, world: World | None = None) -> OptimizerStep:
    """Make a step of plain gradient descent without clipping: what moved is the gradient."""
    world = world or World()
    precision = choose_precision(PrecisionConfig(precision="fp32"), torch.device("cpu"))
    return OptimizerStep(
        world.parallelize(model, torch.device("cpu")),
        torch.optim.SGD(model.parameters(), lr=1.0),
        world=world,
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


def kfac_of(model: nn.Module, world: World | None = None, **changes: Any) -> Preconditioner:
    """Build what the flags say, with damping as it is where they say nothing of it."""
    config = KfacConfig(kfac=True, **{"kfac_relative_damping": False, **changes})
    preconditioner = build_preconditioner(config, model, world or World())
    assert preconditioner is not None
    return preconditioner


def movement(model: nn.Module, step: OptimizerStep, batches: list[MicroBatch], number: int) -> dict[str, Tensor]:
    """Take an update and return what it moved, divided by the learning rate."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    step(Update(batches, 0, 0, 1), step=number, learning_rate=RATE)
    return {name: (before[name] - value.detach()) / RATE for name, value in model.named_parameters()}


def update_batches(seed: int, *, pairs: bool) -> list[MicroBatch]:
    """Make an update's eight micro-batches."""
    batches = [random_micro_batch(each, V, pairs=pairs, seed=10 * seed + i) for i, each in enumerate(LENGTHS)]
    return [_without_masked_firsts(batch) for batch in batches]


def _without_masked_firsts(batch: MicroBatch) -> MicroBatch:
    """[CLS] is never masked; a pruned last layer would compute it twice, once for each loss."""
    kept = ~np.isin(batch.masked_positions, batch.cu_seqlens)
    return batch._replace(masked_positions=batch.masked_positions[kept], labels=batch.labels[kept])


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


def whole_loss(model: PretrainingModel, batches: list[MicroBatch]) -> Tensor:
    """Return the update's loss from its definition: each loss's sum over all batches, divided by its count."""
    terms = [model(PackedBatch.from_numpy(batch, "cpu")) for batch in batches]
    loss = sum(term.mlm_loss_sum for term in terms) / sum(batch.num_masked for batch in batches)
    pairs = sum(batch.num_pairs for batch in batches)
    return loss + sum(term.nsp_loss_sum for term in terms) / pairs if pairs else loss


def linear_names(model: nn.Module) -> list[str]:
    """Name the layers that K-FAC is for."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def matrix_of(layer: nn.Linear, tensors: dict[str, Tensor], name: str) -> Tensor:
    """Put what belongs to a layer's weight and bias side by side."""
    weight = tensors[f"{name}.weight"]
    return weight if layer.bias is None else torch.cat([weight, tensors[f"{name}.bias"][:, None]], 1)


def dense_movements(kind: str, **form: bool) -> Iterator[tuple[dict[str, Tensor], bool]]:
    """Take UPDATES by dense solves; yield what each moved, divided by the learning rate, and whether κ limited it."""
    model = small_model(kind)
    names = linear_names(model)
    averages: dict[str, tuple[Tensor, Tensor]] = {}
    in_use: dict[str, tuple[Tensor, Tensor]] = {}
    for number in UPDATES:
        batches = [joined(update_batches(number, pairs=kind == "bert"))]
        rows = rows_of(model, names, lambda batches=batches: whole_loss(model, batches))
        for name in names:
            new = dense_factors(rows[name], batches[0].num_masked)
            old = averages.get(name, new)
            averages[name] = (0.7 * old[0] + 0.3 * new[0], 0.7 * old[1] + 0.3 * new[1])
        if number in (1, 3):  # every second update, the first one among them
            in_use = dict(averages)
        parameters = dict(model.named_parameters())
        gradients = torch.autograd.grad(whole_loss(model, batches), list(parameters.values()))
        moved = dict(zip(parameters, gradients, strict=True))
        matrices = {name: matrix_of(model.get_submodule(name), moved, name) for name in names}
        damping = 0.05 if number == 3 else 0.02
        solved = {name: dense_solution(matrices[name], *in_use[name], damping, **form) for name in names}
        scale = kl_factor(solved, matrices, RATE, 0.01)
        for name in names:
            layer = model.get_submodule(name)
            moved[f"{name}.weight"] = scale * solved[name][:, : layer.in_features]
            if layer.bias is not None:
                moved[f"{name}.bias"] = scale * solved[name][:, -1]
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter -= RATE * moved[name]
        yield moved, scale < 1
