"""`habana_frameworks.torch.hpex.optimizers`, by their formulas.

docs.habana.ai/en/latest/PyTorch/Model_Optimization_PyTorch/Custom_Ops_PyTorch.html; the formulas are those that
HabanaAI/gaudi-pytorch-bridge (1.19.0) tests its kernels against.
"""

from typing import Any

import torch

from tests.support.habana.calls import only_documented, record

__getattr__ = only_documented(__name__)


class FusedLamb(torch.optim.Optimizer):
    """LAMB as apex has it: weight decay in the update, a trust ratio for groups that have any."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        adam_w_mode: bool = True,
        grad_averaging: bool = True,
        set_grad_none: bool = True,
        max_grad_norm: float | None = 1.0,
        use_lamb: bool = False,
    ) -> None:
        if amsgrad or not adam_w_mode or not grad_averaging or max_grad_norm is not None:
            raise NotImplementedError("variants that are not used here")
        record("FusedLamb")
        self.use_lamb = use_lamb
        values = {"lr": lr, "bias_correction": bias_correction, "betas": betas, "eps": eps}
        super().__init__(params, {**values, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step."""
        record("FusedLamb.step")
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
            beta1, beta2 = group["betas"]
            corrected = group["bias_correction"]
            correction1, correction2 = (1 - beta ** group["step"] if corrected else 1.0 for beta in (beta1, beta2))
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                first, second = _moments(self.state[weight], weight)
                first.mul_(beta1).add_(weight.grad, alpha=1 - beta1)
                second.mul_(beta2).add_(weight.grad.square(), alpha=1 - beta2)
                update = first.div(correction1) / (second.div(correction2).sqrt() + group["eps"])
                update = update + weight * group["weight_decay"]
                ratio = torch.ones_like(update.sum())
                if group["weight_decay"] != 0 or self.use_lamb:
                    lengths = weight.square().sum().sqrt(), update.square().sum().sqrt()
                    ratio = torch.where((lengths[0] > 0) & (lengths[1] > 0), lengths[0] / lengths[1], ratio)
                weight.sub_(ratio * update * group["lr"])


class FusedAdamW(torch.optim.Optimizer):
    """AdamW with epsilon beside the uncorrected second moment (the bridge: step size first, then the kernel)."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
    ) -> None:
        record("FusedAdamW")
        values = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**values, "bias_correction": bias_correction})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step."""
        record("FusedAdamW.step")
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            group["step"] = group.get("step", 0) + 1
            (beta1, beta2), rate = group["betas"], group["lr"]
            if group["bias_correction"]:
                rate *= (1 - beta2 ** group["step"]) ** 0.5 / (1 - beta1 ** group["step"])
            for weight in weights:
                first, second = _moments(self.state[weight], weight)
                first.mul_(beta1).add_(weight.grad, alpha=1 - beta1)
                second.mul_(beta2).add_(weight.grad.square(), alpha=1 - beta2)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(rate * first / (second.sqrt() + group["eps"]))


def _moments(state: dict[str, Any], weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if not state:
        state["exp_avg"] = torch.zeros_like(weight)
        state["exp_avg_sq"] = torch.zeros_like(weight)
    return state["exp_avg"], state["exp_avg_sq"]
