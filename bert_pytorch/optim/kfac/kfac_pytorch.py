"""The one door to gpauloski/kfac-pytorch (Pauloski et al. 2021, "KAISA"), driven by the same flags as our own K-FAC.

It counts otherwise: its averages begin with the identity, take all rows of a call alike (padding too) and all
micro-batches alike, whatever their sizes, and what is not finite in them stays; its checkpoints hold no eigenbases.
"""
# I inputs of a layer, the bias's constant among them; O its outputs

import importlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from bert_pytorch.errors import InputError
from bert_pytorch.optim.kfac.layers import sizes
from bert_pytorch.optim.kfac.method import Method
from bert_pytorch.optim.kfac.stepwise import Stepwise


def kfac_pytorch_problem() -> str | None:
    """Return why kfac-pytorch cannot be used and what to do, None where it can."""
    try:
        _preconditioner_class()
    except (ImportError, AttributeError) as error:
        return (
            f"kfac.preconditioner.KFACPreconditioner cannot be imported ({error}). It is gpauloski/kfac-pytorch's, "
            "which is not on the package index (the `kfac` there is another project): pip install "
            "git+https://github.com/gpauloski/kfac-pytorch, or leave --kfac_backend out."
        )
    return None


def _preconditioner_class() -> Any:
    return importlib.import_module("kfac.preconditioner").KFACPreconditioner


class KfacPytorch:
    """The adapter; see `optim.preconditioner.Preconditioner` for what is called when.

    Gradients are shown to it as those of each loss term alone, so that damping means the same whatever the batch.

    Args:
        model: not wrapped.
        layers: of it, to precondition.
        method: how; without `factored_damping`, `relative_damping` and `max_rows`.
        gradient_workers: part of the ranks that solve for a layer.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, nn.Linear], method: Method, gradient_workers: float
    ) -> None:
        self._layers = layers
        self._step = 1
        self._learning_rate = 0.0
        self._term_scale = 1.0
        """What a loss term's own gradient was multiplied by in the passes."""
        kl_clip = method.kl_clip or None
        self._kfac = _preconditioner_class()(
            model,
            factor_update_steps=self._interval(method.factor_interval),
            inv_update_steps=self._interval(method.inv_interval),
            damping=lambda _: method.damping.at(self._step),
            factor_decay=lambda _: method.stat_decay,  # as a function: a plain 0 is refused
            kl_clip=lambda _: kl_clip,
            lr=lambda _: self._learning_rate,
            grad_worker_fraction=gradient_workers,
            grad_scaler=lambda: self._term_scale,
            compute_eigenvalue_outer_product=False,  # it would hold damping from one decomposition to the next
            symmetry_aware=True,
            factor_dtype=torch.float32,
            skip_layers=[f"^{re.escape(name)}$" for name in _others(model, layers)],
            update_factors_in_hook=False,  # it counts micro-batches, whose number differs among our updates
        )

    def _interval(self, interval: Stepwise) -> Any:
        """Put what is due at this run's update in its terms: own steps from 0, of which multiples are due."""
        return lambda steps: 1 if interval.is_due(self._step) else steps + 1

    def begin(self, step: int, *, loss_terms: float, gradient_scale: float) -> None:
        """Let it see the passes of update `step`."""
        self._step, self._term_scale = step, gradient_scale / max(loss_terms, 1)
        self._kfac.reset_batch()

    def passes_done(self) -> None:
        """Do nothing: it sends within its step."""

    def precondition(self, *, learning_rate: float) -> None:
        """Let it take its step, and put the gradients that it makes where those were that others hold."""
        self._learning_rate = learning_rate
        parameters = [parameter for layer in self._layers.values() for parameter in layer.parameters()]
        before = [parameter.grad for parameter in parameters]
        self._kfac.step()
        for parameter, gradient in zip(parameters, before, strict=True):
            assert gradient is not None
            assert parameter.grad is not None
            gradient.copy_(parameter.grad)
            parameter.grad = gradient

    def failures(self) -> int:
        """Return 0: it notices none."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return its factors; eigenbases are made of them again."""
        return {"step": self._step, **self._kfac.state_dict()}

    def load_state_dict(self, state: dict[str, Any], where: str) -> None:
        """Take factors over and decompose them; between two decompositions that is not what the run had before.

        Raises:
            InputError: if they are not this model's, or another backend's.
        """
        found = state.get("layers")
        shapes = {name: [(size, size) for size in sizes(layer)] for name, layer in self._layers.items()}
        if not (
            isinstance(found, Mapping)
            and all(isinstance(state.get(key), int) and state[key] >= least for key, least in _COUNTS)
            and found.keys() == shapes.keys()
            and all(_shapes(found[name]) == shapes[name] for name in shapes)
        ):
            raise InputError(
                f"{where}: its state of K-FAC is not kfac-pytorch's for these layers. Use the --kfac_backend and "
                "--kfac_skip_layers that it was trained with. Or give it as --init_checkpoint to a new output folder "
                "to start from its weights alone."
            )
        self._step = state["step"]
        self._kfac.load_state_dict({"steps": state["steps"], "layers": found})


_COUNTS = (("step", 1), ("steps", 1))
"""Of this run's updates and of its own; the least that they can be."""


def _others(model: nn.Module, layers: Mapping[str, nn.Linear]) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name not in layers]


def _shapes(factors: Any) -> list[tuple[int, ...] | None]:
    if not isinstance(factors, Mapping):
        return []
    parts = [factors.get("A"), factors.get("G")]
    return [tuple(part.shape) if isinstance(part, torch.Tensor) else None for part in parts]
