"""One optimizer update, whole: the order of things stands in `OptimizerStep.__call__` and nowhere else."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from bert_pytorch.optim.groups import LEARNING_RATE_SCALE
from bert_pytorch.optim.norms import clipping_on, global_norm
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.optim.sharded import Sharding
from bert_pytorch.runtime.device import end_graph, seed_dropout, widest_float
from bert_pytorch.runtime.distributed import World, sync_gradients
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.training.objective import Objective
from bert_pytorch.training.updates import Update


class StepOutcome(NamedTuple):
    """What an update did; losses are natural-log means over all ranks and micro-batches."""

    stopped: bool
    """The update was dropped half way because a stop was asked for; nothing has changed."""
    skipped: bool
    """Gradients were not finite, so that the parameters stand as they were."""
    loss: float
    """What training minimises."""
    losses: dict[str, float | None]
    """What it is made of, named by the objective."""
    grad_norm: float
    """L2 norm of all gradients, before preconditioning and clipping."""
    num_tokens: int
    """Real tokens over all ranks."""
    model_flops: float
    """Over all ranks."""


NAN = float("nan")
STOPPED = StepOutcome(True, False, NAN, {}, NAN, 0, 0.0)


class OptimizerStep:
    """Takes updates on one rank.

    The losses of micro-batches are sums, divided by the counts over *all* ranks and micro-batches: A micro-batches on W
    ranks give the gradient of one batch of their union, although the number of masked tokens differs among them.  What
    is summed and counted is the objective's to say; the order of things is the same whatever is learnt.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        world: World,
        device: torch.device,
        precision: Precision,
        scaler: torch.amp.GradScaler,
        max_grad_norm: float,
        objective: Objective,
        flops_of: Callable[[Any], int],
        seed: int,
        stop_requested: Callable[[], bool],
        preconditioner: Preconditioner | None = None,
        sharding: Sharding | None = None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._world = world
        self._device = device
        self._precision = precision
        self._scaler = scaler
        self._max_grad_norm = max_grad_norm
        self._clip = clipping_on(device, self._parameters, max_grad_norm)
        self._objective = objective
        self._flops_of = flops_of
        self._seed = seed
        self._stop_requested = stop_requested
        self._preconditioner = preconditioner
        self._sharding = sharding or Sharding(optimizer, world, shards=False)

    def __call__(self, update: Update, *, step: int, learning_rate: float) -> StepOutcome:
        """Take update number `step` (1-based, phases added up) with `learning_rate`."""
        here = np.sum([self._counted(batch) for batch in update.micro_batches], axis=0)
        *counts, tokens, flops = self._world.sum(here.tolist())  # 1 global counts, before any forward pass
        # On the device: no wait for it per micro-batch.
        sums = torch.zeros(len(counts), dtype=widest_float(self._device), device=self._device)
        if self._preconditioner is not None:
            gradient_scale = self._scaler.get_scale() * self._world.size
            self._preconditioner.begin(  # 2 it sees the passes of some updates
                step, loss_terms=counts[0], gradient_scale=gradient_scale
            )
        for index, batch in enumerate(update.micro_batches):
            if self._world.any(self._stop_requested()):  # 3 all ranks stop between the same micro-batches
                self._optimizer.zero_grad(set_to_none=True)
                return STOPPED
            last = index == len(update.micro_batches) - 1
            seed_dropout(_dropout_seed(self._seed, step, index, self._world.rank))
            packed = self._objective.on_device(batch, self._device)
            with sync_gradients(self._model, only_if=last):  # 4 one all-reduce an update
                with self._precision.autocast():
                    terms = self._model(packed)
                loss = self._objective.share_of_loss(terms, counts)
                # DistributedDataParallel averages over ranks where we want the sum.
                self._scaler.scale(loss * self._world.size).backward()
            sums += self._objective.sums(terms)
            end_graph(self._device)
        if self._preconditioner is not None:
            self._preconditioner.passes_done()  # what they showed travels meanwhile
        self._scaler.unscale_(self._optimizer)  # 5 true gradients
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = global_norm(gradients)
        grad_norm, *host_sums = torch.cat([norm.reshape(1), sums]).tolist()  # the one wait for the device
        *totals, not_finite = self._world.sum([*host_sums, float(not np.isfinite(grad_norm))])
        skipped = not_finite > 0  # 6 every rank decides alike
        if not skipped:
            norm_to_clip = grad_norm
            if self._preconditioner is not None:  # 7 curvature is of true gradients, clipping of the direction taken
                self._preconditioner.precondition(learning_rate=learning_rate)
                norm_to_clip = global_norm(gradients).item()
            if 0 < self._max_grad_norm < norm_to_clip:  # 8 the global norm, as apex does, without an epsilon
                self._clip(gradients, norm_to_clip)
            for group in self._optimizer.param_groups:  # 9 a function of the step, never read back from here
                group["lr"] = learning_rate * group.get(LEARNING_RATE_SCALE, 1.0)
            with self._sharding.each_its_own():  # 10 where state is sharded, the ranks share the work of it
                self._scaler.step(self._optimizer)
            end_graph(self._device)
        self._scaler.update()  # 11 halves the loss scale after a skip
        self._optimizer.zero_grad(set_to_none=True)
        means = [total / (count or 1) for total, count in zip(totals, counts, strict=True)]
        report = self._objective.report(means, counts)
        return StepOutcome(
            stopped=False,
            skipped=skipped,
            loss=report.loss,
            losses=report.each,
            grad_norm=grad_norm,
            num_tokens=int(tokens),
            model_flops=flops,
        )

    def _counted(self, batch: Any) -> list[float]:
        return [*self._objective.counts(batch), batch.num_tokens, self._flops_of(batch)]


def _dropout_seed(seed: int, step: int, micro_batch: int, rank: int) -> int:
    state = np.random.SeedSequence([seed, step, micro_batch, rank]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
