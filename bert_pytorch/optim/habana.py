"""LAMB and AdamW whose steps Habana's fused kernels take on a Gaudi.

What a kernel is given as a number becomes a constant of a compiled graph, so that a rate which changes with every
update would compile one with every update; the fused optimizers pass theirs as tensors.  Groups, moments and step
counts stay those of `Lamb` and `torch.optim.AdamW`: a checkpoint does not tell which of them wrote it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bert_pytorch.optim.lamb import Lamb
from bert_pytorch.runtime import hpu

logger = logging.getLogger(__name__)

Fused = Callable[..., torch.optim.Optimizer]


class HabanaLamb(Lamb):
    """`Lamb` by FusedLamb, which has the same semantics (apex's): clipping, which we do once, is turned off there."""

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float, fused: Fused
    ) -> None:
        super().__init__(list(groups), lr=lr, betas=betas, eps=eps)
        self._fused = fused(_plain(self.param_groups), lr=lr, betas=betas, eps=eps, max_grad_norm=None, use_lamb=False)

    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for own, theirs in zip(self.param_groups, self._fused.param_groups, strict=True):
            theirs.update({key: own[key] for key in ("lr", "betas", "eps", "weight_decay", "bias_correction", "step")})
        self._fused.state = self.state
        self._fused.step()
        for own, theirs in zip(self.param_groups, self._fused.param_groups, strict=True):
            own["step"] = theirs["step"]
        return loss


class HabanaAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` by FusedAdamW.

    One thing differs: epsilon is added before the second moment's bias correction, as if it were epsilon /
    sqrt(1 - beta2^t) in update t.  Scaling it here would make it another constant, and another graph, in each update.
    """

    def __init__(
        self, groups: Sequence[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float, fused: Fused
    ) -> None:
        super().__init__(list(groups), lr=lr, betas=betas, eps=eps)
        self._fused = fused(_plain(self.param_groups), lr=lr, betas=betas, eps=eps, bias_correction=True)

    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; those of a group have taken equally many steps."""
        loss = None if closure is None else closure()
        for own, theirs in zip(self.param_groups, self._fused.param_groups, strict=True):
            states = [self._state_of(parameter) for parameter in own["params"] if parameter.grad is not None]
            theirs.update({key: own[key] for key in ("lr", "betas", "eps", "weight_decay")})
            theirs["step"] = int(states[0]["step"]) if states else 0  # a host tensor: nothing waits for it
            for state in states:
                state["step"] += 1
        self._fused.state = self.state
        self._fused.step()
        return loss

    def _state_of(self, parameter: torch.Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def build_on_hpu(
    name: str, groups: Sequence[dict[str, Any]], *, learning_rate: float, betas: tuple[float, float], eps: float
) -> torch.optim.Optimizer | None:
    """Return an optimizer by Habana's kernels, None where parameters are elsewhere or this version has no such kernel.

    Args:
        name: `lamb` or `adamw`.
        groups: from `parameter_groups`, each with its own weight decay.
        learning_rate: of the next step.
        betas: decay of the first and the second moment.
        eps: epsilon.
    """
    if any(parameter.device.type != "hpu" for group in groups for _, parameter in group["params"]):
        return None
    theirs, ours = {"lamb": ("FusedLamb", HabanaLamb), "adamw": ("FusedAdamW", HabanaAdamW)}[name]
    fused = hpu.fused_optimizer(theirs)
    if fused is None:
        logger.warning("optimizer: Habana's %s is missing, torch's operators take its place, more slowly", theirs)
        return None
    logger.info("optimizer: Habana's %s", theirs)
    return ours(groups, lr=learning_rate, betas=betas, eps=eps, fused=fused)


def _plain(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"params": list(group["params"]), "weight_decay": group["weight_decay"]} for group in groups]
