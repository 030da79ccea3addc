"""One optimizer update, whole: the order of things stands in `OptimizerStep.__call__` and nowhere else."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bert_pytorch.data.loader import Update
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss, LossTerms
from bert_pytorch.optim.norms import global_norm
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.device import seed_dropout
from bert_pytorch.runtime.distributed import World, sync_gradients
from bert_pytorch.runtime.precision import Precision


class StepOutcome(NamedTuple):
    """What an update did; losses are natural-log means over all ranks and micro-batches."""

    stopped: bool
    """The update was dropped half way because a stop was asked for; nothing has changed."""
    skipped: bool
    """Gradients were not finite, so that the parameters stand as they were."""
    loss: float
    """Their weighted sum, which is what training minimises."""
    mlm_loss: float
    """Per masked token."""
    nsp_loss: float | None
    """Per pair; None without the next-sentence task."""
    soft_target_loss: float | None
    """Per masked token; None where no teacher's predictions are learnt."""
    cosine_loss: float | None
    """Per real token; None where no teacher's hidden states are learnt."""
    grad_norm: float
    """L2 norm of all gradients before clipping."""
    num_tokens: int
    """Real tokens over all ranks."""
    model_flops: float
    """Over all ranks."""


NAN = float("nan")
STOPPED = StepOutcome(True, False, NAN, NAN, None, None, None, NAN, 0, 0.0)


class OptimizerStep:
    """Takes updates on one rank.

    The losses of micro-batches are sums, divided by the counts over *all* ranks and micro-batches: A micro-batches on W
    ranks give the gradient of one batch of their union, although the number of masked tokens differs among them.
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
        loss_weights: EachLoss[float],
        flops_of: Callable[[MicroBatch], int],
        seed: int,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._world = world
        self._device = device
        self._precision = precision
        self._scaler = scaler
        self._max_grad_norm = max_grad_norm
        self._loss_weights = loss_weights
        self._flops_of = flops_of
        self._seed = seed
        self._stop_requested = stop_requested

    def __call__(self, update: Update, *, step: int, learning_rate: float) -> StepOutcome:
        """Take update number `step` (1-based, phases added up) with `learning_rate`."""
        flops = sum(self._flops_of(batch) for batch in update.micro_batches)
        here = [update.num_masked, update.num_pairs, update.num_tokens, flops]
        masked, pairs, tokens, flops_of_all = self._world.sum(here)  # 1 global counts, before any forward pass
        counts = EachLoss(mlm=masked, nsp=pairs, soft_targets=masked, cosine=tokens)
        sums = torch.zeros(len(counts), dtype=torch.float64, device=self._device)  # no wait for it per micro-batch
        for index, batch in enumerate(update.micro_batches):
            if self._world.any(self._stop_requested()):  # 2 all ranks stop between the same micro-batches
                self._optimizer.zero_grad(set_to_none=True)
                return STOPPED
            last = index == len(update.micro_batches) - 1
            seed_dropout(_dropout_seed(self._seed, step, index, self._world.rank))
            packed = PackedBatch.from_numpy(batch, self._device)
            with sync_gradients(self._model, only_if=last):  # 3 one all-reduce an update
                with self._precision.autocast():
                    terms: LossTerms = self._model(packed)
                loss = terms.share_of_loss(self._loss_weights, counts)
                # DistributedDataParallel averages over ranks where we want the sum.
                self._scaler.scale(loss * self._world.size).backward()
            sums += terms.detached()
        self._scaler.unscale_(self._optimizer)  # 4 true gradients
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = global_norm(gradients)
        grad_norm, *host_sums = torch.cat([norm.reshape(1), sums]).tolist()  # the one wait for the device
        *totals, not_finite = self._world.sum([*host_sums, float(not np.isfinite(grad_norm))])
        skipped = not_finite > 0  # 5 every rank decides alike
        if not skipped:
            if 0 < self._max_grad_norm < grad_norm:  # 6 clip the global norm, as apex does, without an epsilon
                torch._foreach_mul_(gradients, self._max_grad_norm / grad_norm)
            for group in self._optimizer.param_groups:  # 7 a function of the step, never read back from here
                group["lr"] = learning_rate
            self._scaler.step(self._optimizer)  # 8
        self._scaler.update()  # 9 halves the loss scale after a skip
        self._optimizer.zero_grad(set_to_none=True)
        means = EachLoss(*(total / max(count, 1) for total, count in zip(totals, counts, strict=True)))
        return StepOutcome(
            stopped=False,
            skipped=skipped,
            loss=sum(weight * mean for weight, mean in zip(self._loss_weights, means, strict=True)),
            mlm_loss=means.mlm,
            nsp_loss=means.nsp if pairs else None,
            soft_target_loss=means.soft_targets if self._loss_weights.soft_targets else None,
            cosine_loss=means.cosine if self._loss_weights.cosine else None,
            grad_norm=grad_norm,
            num_tokens=int(tokens),
            model_flops=flops_of_all,
        )


def _dropout_seed(seed: int, step: int, micro_batch: int, rank: int) -> int:
    state = np.random.SeedSequence([seed, step, micro_batch, rank]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
