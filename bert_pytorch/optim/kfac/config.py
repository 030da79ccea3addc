"""Configuration of K-FAC, and building it."""

import logging
import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import nn

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError
from bert_pytorch.optim.kfac.kfac_pytorch import KfacPytorch, kfac_pytorch_problem
from bert_pytorch.optim.kfac.layers import preconditioned_layers
from bert_pytorch.optim.kfac.memory import KfacMemory, memory_of
from bert_pytorch.optim.kfac.method import Method
from bert_pytorch.optim.kfac.preconditioner import Kfac
from bert_pytorch.optim.kfac.stepwise import parse_stepwise
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.runtime.distributed import World

logger = logging.getLogger(__name__)


class KfacConfig(Settings):
    """K-FAC before the optimizer; docs/kfac.md tells what it costs and how to set it."""

    kfac: bool = False
    """Precondition gradients by K-FAC; --optimizer takes them as it would take any."""
    kfac_backend: Literal["bert_pytorch", "kfac-pytorch"] = "bert_pytorch"
    """This project's own, or gpauloski/kfac-pytorch where it is installed; docs/kfac.md tells what differs."""
    kfac_inv_interval: int | str = 10
    """Updates from one decomposition of the factors to the next; `10,1000:100` is 10, and 100 from update 1000 on."""
    kfac_factor_interval: int | str = 1
    """Updates from one that the factors are measured in to the next, also by update."""
    kfac_stat_decay: float = Field(0.95, ge=0, lt=1)
    """What a factor keeps of its running average each time it is measured."""
    kfac_damping: float | str = 0.01
    """Added to the curvature; also by update."""
    kfac_factored_damping: bool = False
    """Damp each of the two factors, weighed by their traces, instead of their product (Martens & Grosse 2015, 6.3)."""
    kfac_relative_damping: bool | None = None
    """Measure a layer's curvature, and so damping, in units of its mean, and return gradients in their own scale:
    layers of BERT differ by six decades. By default on, but with --kfac_backend kfac-pytorch, which has nothing like
    it."""
    kfac_kl_clip: float = Field(0.001, ge=0)
    """Gradients of the preconditioned layers are scaled down together until learning rate^2 * (preconditioned .
    true gradient) is no more than this; 0 for no limit."""
    kfac_skip_layers: tuple[str, ...] = ()
    """Regular expressions: linear layers whose name (bert.encoder.layer.0.attention.self.query) has one are left as
    they are."""
    kfac_max_rows: int | None = Field(None, ge=1)
    """Tokens of a micro-batch that the factors are measured on, evenly at random; by default all."""
    kfac_gradient_workers: float = Field(1.0, gt=0, le=1)
    """Part of the ranks that keep the decomposition of a layer and solve for it: 1 sends least often, less takes less
    memory (each of R ranks 1/R of the layers at the smallest)."""

    def combination_problems(self) -> Iterator[str]:
        """Say which values by update cannot be read, and which expressions."""
        yield from super().combination_problems()
        for name in ("kfac_inv_interval", "kfac_factor_interval"):
            yield from _stepwise_problems(name, getattr(self, name), whole=True)
        yield from _stepwise_problems("kfac_damping", self.kfac_damping, whole=False)
        for pattern in self.kfac_skip_layers:
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"--kfac_skip_layers: {pattern!r} is no regular expression ({error})."
        if self.kfac_backend == "kfac-pytorch":
            for name in ("factored_damping", "relative_damping", "max_rows"):
                if getattr(self, f"kfac_{name}"):
                    yield f"--kfac_{name}: --kfac_backend kfac-pytorch has nothing like it; leave one of them out."


def build_preconditioner(config: KfacConfig, model: nn.Module, world: World) -> Preconditioner | None:
    """Build what is configured over a model on its device; all ranks call this together.

    Returns:
        None without --kfac.

    Raises:
        ConfigError: if no layer is left to precondition, or the ranks cannot be divided as asked.
    """
    if not config.kfac:
        return None
    layers, workers = _layers(config, model), _workers(config, world.size)
    logger.info(
        "K-FAC (%s): %d linear layers; %d of %d ranks work for each",
        config.kfac_backend, len(layers), workers, world.size,
    )  # fmt: skip
    method = Method(
        damping=parse_stepwise(config.kfac_damping),
        factored_damping=config.kfac_factored_damping,
        relative_damping=config.kfac_relative_damping is not False and config.kfac_backend == "bert_pytorch",
        kl_clip=config.kfac_kl_clip,
        stat_decay=config.kfac_stat_decay,
        factor_interval=parse_stepwise(config.kfac_factor_interval),
        inv_interval=parse_stepwise(config.kfac_inv_interval),
        max_rows=config.kfac_max_rows,
    )
    if config.kfac_backend == "kfac-pytorch":
        if problem := kfac_pytorch_problem():
            raise ConfigError("--kfac_backend kfac-pytorch", [problem])
        return KfacPytorch(model, layers, method, workers / world.size)
    return Kfac(layers, method, world, workers)


def estimate_memory(config: KfacConfig, model: nn.Module, ranks: int) -> KfacMemory:
    """Return what K-FAC takes on the rank that it takes most on; the model may be on the meta device.

    Raises:
        ConfigError: as `build_preconditioner`.
    """
    theirs = config.kfac_backend == "kfac-pytorch"
    return memory_of(_layers(config, model), ranks, _workers(config, ranks), folded=not theirs)


def _layers(config: KfacConfig, model: nn.Module) -> dict[str, nn.Linear]:
    layers = preconditioned_layers(model, config.kfac_skip_layers)
    if not layers:
        raise ConfigError("K-FAC", [f"--kfac_skip_layers {' '.join(config.kfac_skip_layers)} leaves no layer."])
    return layers


def _workers(config: KfacConfig, ranks: int) -> int:
    workers = max(1, round(config.kfac_gradient_workers * ranks))
    if ranks % workers:
        raise ConfigError(
            "K-FAC",
            [
                f"--kfac_gradient_workers {config.kfac_gradient_workers} of {ranks} ranks are {workers}, wanted a "
                f"number that divides {ranks}."
            ],
        )
    return workers


def _stepwise_problems(name: str, value: float | str, *, whole: bool) -> Iterator[str]:
    wanted = "whole numbers ≥ 1" if whole else "numbers > 0"
    try:
        pieces = parse_stepwise(value).pieces
    except ValueError:
        pieces = ()
    if not pieces or not all(_fits(piece.value, whole) for piece in pieces):
        yield f"--{name}: found {value!r}, wanted {wanted}: 10, or 10,1000:100 for 100 from update 1000 on."


def _fits(value: float, whole: bool) -> bool:
    return (value >= 1 and value == int(value)) if whole else 0 < value < float("inf")
