"""LAMB (You et al. 2020, arXiv:1904.00962v5, Algorithm 2) with the semantics of NVIDIA's FusedLAMB (apex).

As there: phi(z) = z without bounds, bias correction on, the decayed weight inside the update, one step count per group,
and plain Adam steps for groups without weight decay (biases, LayerNorm).  Unlike there: no clipping of gradients in
here, because the engine clips once, and gradients are left as they are.

Three paths compute the same numbers: `_reference_update` reads like the paper; `_foreach_update` runs over whole lists
of tensors and never waits for the device; `kernels.triton_lamb` needs two launches a group.  Tests hold them equal.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch.optim.optimizer import ParamsT

from bert_pytorch.kernels.registry import triton_function
from bert_pytorch.optim.norms import tensor_norms

LambImplementation = Literal["reference", "foreach", "triton"]


class Lamb(torch.optim.Optimizer):
    """Layer-wise adaptive moments.

    State per parameter: `exp_avg` and `exp_avg_sq`, shaped and typed like it.  State per group: `step`, an int.

    Args:
        params: parameters or groups, all of floating dtype; masters should be float32 or wider.
        lr: learning rate of the next step; the training loop sets `group["lr"]` before each.
        betas: decay of the first and the second moment.
        eps: added to the square root of the second moment, after its bias correction.
        weight_decay: decoupled decay, 0 for groups that take plain Adam steps.
        bias_correction: divide the moments by 1 - beta^step.
        use_nvlamb: apply the trust ratio to groups without weight decay as well.
        implementation: how; `triton` (float32 on CUDA) leaves other tensors to `foreach`.  May be set later.

    Raises:
        ValueError: if a value is out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        bias_correction: bool = True,
        use_nvlamb: bool = False,
        implementation: LambImplementation = "foreach",
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0:
            raise ValueError(f"lr, eps and weight_decay must be >= 0, found {lr}, {eps} and {weight_decay}.")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), found {betas}.")
        self.implementation: LambImplementation = implementation
        self._triton: Any = None
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "bias_correction": bias_correction,
                "use_nvlamb": use_nvlamb,
                "step": 0,
            },
        )

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; the others and their moments stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for index, group in enumerate(self.param_groups):
            group["step"] += 1
            for params in self._lists_by_device_and_dtype(group):
                grads = [param.grad for param in params]
                exp_avgs = [self.state[param]["exp_avg"] for param in params]
                exp_avg_sqs = [self.state[param]["exp_avg_sq"] for param in params]
                self._update((params, grads, exp_avgs, exp_avg_sqs), group, index)
        return loss

    def _update(
        self, lists: tuple[list[Any], list[Any], list[Any], list[Any]], group: dict[str, Any], key: int
    ) -> None:
        if self.implementation == "reference":
            for tensors in zip(*lists, strict=True):
                _reference_update(*tensors, group)
            return
        if self.implementation == "triton":
            self._triton = self._triton or triton_function("lamb")()
            if self._triton.fits(lists):
                correction1, correction2 = _bias_corrections(group)
                self._triton.update(
                    key,
                    lists,
                    lr=group["lr"],
                    betas=group["betas"],
                    eps=group["eps"] * math.sqrt(correction2),
                    scale=math.sqrt(correction2) / correction1,
                    decay=group["weight_decay"],
                    trust=_takes_trust_ratio(group),
                )
                return
        _foreach_update(*lists, group)

    def _lists_by_device_and_dtype(self, group: dict[str, Any]) -> list[list[Any]]:
        """Split a group's parameters with gradients into lists that one kernel can take; first use makes moments."""
        lists: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for param in group["params"]:
            if param.grad is None:
                continue
            if param.grad.is_sparse:
                raise ValueError("LAMB needs dense gradients, found a sparse one: build embeddings with sparse=False.")
            if not self.state[param]:
                self.state[param]["exp_avg"] = torch.zeros_like(param)
                self.state[param]["exp_avg_sq"] = torch.zeros_like(param)
            lists.setdefault((param.device, param.dtype), []).append(param)
        return list(lists.values())


def _reference_update(
    param: torch.Tensor, grad: torch.Tensor, exp_avg: torch.Tensor, exp_avg_sq: torch.Tensor, group: dict[str, Any]
) -> None:
    """Update one tensor as Algorithm 2 says, line by line."""
    beta1, beta2 = group["betas"]
    exp_avg.copy_(beta1 * exp_avg + (1 - beta1) * grad)  # m_t
    exp_avg_sq.copy_(beta2 * exp_avg_sq + (1 - beta2) * grad**2)  # v_t
    correction1, correction2 = _bias_corrections(group)
    ratio = (exp_avg / correction1) / ((exp_avg_sq / correction2).sqrt() + group["eps"])  # r_t
    update = ratio + group["weight_decay"] * param  # r_t + lambda x_t
    trust_ratio = 1.0
    if _takes_trust_ratio(group):
        weight_norm = torch.linalg.vector_norm(param, dtype=torch.float64).item()
        update_norm = torch.linalg.vector_norm(update, dtype=torch.float64).item()
        if weight_norm > 0 and update_norm > 0:
            trust_ratio = weight_norm / update_norm
    param.sub_(group["lr"] * trust_ratio * update)


def _foreach_update(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    exp_avgs: list[torch.Tensor],
    exp_avg_sqs: list[torch.Tensor],
    group: dict[str, Any],
) -> None:
    """Update a list of tensors of one device and dtype; two temporaries the size of the list."""
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)  # m_t
    torch._foreach_mul_(exp_avg_sqs, beta2)
    torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)  # v_t
    # Both bias corrections are scalars, so they are pulled out of the tensors, which saves two passes over memory:
    # m/c1 / (sqrt(v/c2) + eps) = scale * m / (sqrt(v) + eps * sqrt(c2)),  scale = sqrt(c2) / c1.
    correction1, correction2 = _bias_corrections(group)
    scale = math.sqrt(correction2) / correction1
    denominators = torch._foreach_sqrt(exp_avg_sqs)
    torch._foreach_add_(denominators, group["eps"] * math.sqrt(correction2))
    updates = torch._foreach_div(exp_avgs, denominators)
    if group["weight_decay"] != 0:
        torch._foreach_add_(updates, params, alpha=group["weight_decay"] / scale)  # (r_t + lambda x_t) / scale
    if not _takes_trust_ratio(group):
        torch._foreach_add_(params, updates, alpha=-group["lr"] * scale)
        return
    weight_norms, update_norms = tensor_norms(params), tensor_norms(updates)
    # The trust ratio divides by the update's norm, so `scale` cancels, except where there is no ratio.
    has_ratio = (weight_norms > 0) & (update_norms > 0)
    trust_ratios = torch.where(has_ratio, weight_norms / update_norms, scale)
    torch._foreach_addcmul_(params, updates, list((group["lr"] * trust_ratios).unbind()), value=-1)


def _takes_trust_ratio(group: dict[str, Any]) -> bool:
    return bool(group["use_nvlamb"] or group["weight_decay"] != 0)


def _bias_corrections(group: dict[str, Any]) -> tuple[float, float]:
    if not group["bias_correction"]:
        return 1.0, 1.0
    beta1, beta2 = group["betas"]
    return 1 - beta1 ** group["step"], 1 - beta2 ** group["step"]
