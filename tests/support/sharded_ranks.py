"""Updates on several ranks, with optimizer state sharded or not.

`python -m tests.support.sharded_ranks FOLDER`, on each rank: it writes what it ended with to FOLDER.
`python -m tests.support.sharded_ranks FOLDER LOST`: rank LOST dies while state is gathered.
"""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch.distributed as dist

from bert_pytorch.data.loader import Update
from bert_pytorch.errors import BertPytorchError, report
from bert_pytorch.models.losses import EachLoss
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.kfac.config import KfacConfig, build_preconditioner
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.optim.sharded import Sharding
from bert_pytorch.optim.state import load_optimizer_state
from bert_pytorch.runtime.distributed import World, discover_world, lost_ranks_explained
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.runtime.rendezvous import RendezvousConfig
from bert_pytorch.training.objective import PretrainingObjective
from bert_pytorch.training.step import OptimizerStep
from tests.support.architectures import config_of, spread_model
from tests.support.packed_batches import random_micro_batch

V, UPDATES, CUT = 1601, 5, 2
SHAPE = {"hidden_size": 192, "num_attention_heads": 4, "intermediate_size": 256}
"""Word embeddings of 1.2 MB travel as they lie, all else joined: see `passing.JOINED_BELOW`."""
CASES = {
    "lamb": {"optimizer": "lamb"},
    "adamw": {"optimizer": "adamw"},
    "adamw, rates by layer": {"optimizer": "adamw", "layer_decay": 0.7},
    "lamb after K-FAC": {"optimizer": "lamb", "kfac": True},
}


class Learnt(NamedTuple):
    """A model and what updates it."""

    model: PretrainingModel
    optimizer: torch.optim.Optimizer
    sharding: Sharding
    kfac: Preconditioner | None
    step: OptimizerStep

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; all ranks call this together."""
        kfac = {} if self.kfac is None else self.kfac.state_dict()
        return {"model": self.model.state_dict(), "optimizer": self.sharding.state_dict(), "kfac": kfac}


def learner(world: World, case: str, *, shards: bool) -> Learnt:
    """Build the parts of an update, as runs do."""
    model = spread_model(config_of("bert", hidden_dropout_prob=0.1, **SHAPE), V).train()
    values: dict[str, Any] = dict(CASES[case])
    decay = values.pop("layer_decay", 1.0)
    kfac = build_preconditioner(KfacConfig(kfac=values.pop("kfac", False), kfac_inv_interval=2), model, world)
    config = OptimizerConfig(max_grad_norm=0.5, **values)
    layers = model.config.num_hidden_layers
    optimizer = build_optimizer(config, model.named_parameters(), layer_decay=decay, layers=layers)
    sharding = Sharding(optimizer, world, shards=shards)
    device = torch.device("cpu")
    precision = choose_precision(PrecisionConfig(precision="fp32"), device)
    step = OptimizerStep(
        world.parallelize(model, device),
        optimizer,
        world=world,
        device=device,
        precision=precision,
        scaler=precision.gradient_scaler(),
        max_grad_norm=config.max_grad_norm,
        objective=PretrainingObjective(EachLoss(mlm=1.0, nsp=1.0, soft_targets=0.0, cosine=0.0)),
        flops_of=lambda batch: 0,
        seed=3,
        stop_requested=lambda: False,
        preconditioner=kfac,
        sharding=sharding,
    )
    return Learnt(model, optimizer, sharding, kfac, step)


def take(learnt: Learnt, world: World, numbers: range) -> list[float]:
    """Take updates of two micro-batches a rank; returns losses and norms."""
    told = []
    for number in numbers:
        seeds = [100 * number + 10 * world.rank + index for index in range(2)]
        batches = [random_micro_batch((7, 12, 5), V, seed=seed) for seed in seeds]
        outcome = learnt.step(Update(batches, 0, 0, 12), step=number, learning_rate=0.01 * number)
        told += [outcome.loss, outcome.grad_norm]
    return told


def kept_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of moments that are here."""
    return sum(each.nbytes for state in optimizer.state.values() for name, each in state.items() if name != "step")


def ended(learnt: Learnt, told: list[float]) -> dict[str, Any]:
    """Return what is compared."""
    return {**learnt.state(), "told": told, "bytes": kept_bytes(learnt.optimizer)}


def resumed(world: World, case: str, saved: Path, *, shards: bool) -> dict[str, Any]:
    """Go on from a file."""
    learnt = learner(world, case, shards=shards)
    state = torch.load(saved, weights_only=True)
    learnt.model.load_state_dict(state["model"])
    load_optimizer_state(learnt.optimizer, learnt.sharding.own_part(state["optimizer"]), str(saved))
    if learnt.kfac is not None:
        learnt.kfac.load_state_dict(state["kfac"], str(saved))
    return ended(learnt, take(learnt, world, range(CUT + 1, UPDATES + 1)))


def case_of(world: World, case: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Take a case's updates in all ways."""
    found = {}
    for name, shards in (("plain", False), ("sharded", True)):
        learnt = learner(world, case, shards=shards)
        told = take(learnt, world, range(1, CUT + 1))
        state = learnt.state()
        saved = folder / f"{case}, {name}.pt"
        world.on_first(lambda saved=saved, state=state: torch.save(state, saved))  # type: ignore[misc]
        found[name] = ended(learnt, told + take(learnt, world, range(CUT + 1, UPDATES + 1)))
        for again, shards_again in (("plain", False), ("sharded", True)):
            found[f"{name}, then {again}"] = resumed(world, case, saved, shards=shards_again)
    return found


def lose(world: World, lost: int) -> None:
    """Let a rank die where others send it state, or wait for its."""
    learnt = learner(world, "lamb", shards=True)
    take(learnt, world, range(1, 2))
    if world.rank == lost:
        dying = mock.Mock(side_effect=lambda *args, **kwargs: os._exit(9))
        with mock.patch.object(dist, "send", dying), mock.patch.object(dist, "recv", dying):
            learnt.sharding.state_dict()
    learnt.sharding.state_dict()
    world.any(True)  # small messages are sent before anybody takes them


def main() -> None:
    """Do what the arguments say."""
    torch.set_num_threads(1)
    folder, *lost = sys.argv[1:]
    world = discover_world(RendezvousConfig())
    world.connect(torch.device("cpu"))
    if lost:
        try:
            with lost_ranks_explained(world):
                lose(world, int(lost[0]))
        except BertPytorchError as error:
            report(str(error))
            os._exit(error.exit_code)
    found = {case: case_of(world, case, Path(folder)) for case in CASES}
    torch.save(found, Path(folder) / f"rank_{world.rank}.pt")
    world.disconnect()


if __name__ == "__main__":
    main()
