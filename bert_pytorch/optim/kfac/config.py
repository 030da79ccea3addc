"""Configuration of K-FAC, and building it."""

import logging
import re
from collections.abc import Iterator

from pydantic import Field
from torch import nn

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError
from bert_pytorch.optim.kfac.layers import preconditioned_layers
from bert_pytorch.optim.kfac.preconditioner import Kfac, Method
from bert_pytorch.optim.kfac.stepwise import parse_stepwise
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.runtime.distributed import World

logger = logging.getLogger(__name__)


class KfacConfig(Settings):
    """K-FAC before the optimizer; docs/kfac.md tells what it costs and how to set it."""

    kfac: bool = False
    """Precondition gradients by K-FAC; --optimizer takes them as it would take any."""
    kfac_inv_interval: int | str = 10
    """Updates from one decomposition of the factors to the next; `10,1000:100` is 10, and 100 from update 1000 on."""
    kfac_factor_interval: int | str = 1
    """Updates from one that the factors are measured in to the next, also by update."""
    kfac_stat_decay: float = Field(0.95, ge=0, lt=1)
    """What a factor keeps of its running average each time it is measured."""
    kfac_damping: float | str = 0.003
    """Added to the curvature, which is that of the mean loss; also by update."""
    kfac_factored_damping: bool = False
    """Damp each of the two factors, weighed by their traces, instead of their product (Martens & Grosse 2015, 6.3)."""
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


def build_preconditioner(config: KfacConfig, model: nn.Module, world: World) -> Preconditioner | None:
    """Build what is configured over a model on its device; all ranks call this together.

    Returns:
        None without --kfac.

    Raises:
        ConfigError: if no layer is left to precondition, or the ranks cannot be divided as asked.
    """
    if not config.kfac:
        return None
    layers = preconditioned_layers(model, config.kfac_skip_layers)
    if not layers:
        raise ConfigError("K-FAC", [f"--kfac_skip_layers {' '.join(config.kfac_skip_layers)} leaves no layer."])
    workers = max(1, round(config.kfac_gradient_workers * world.size))
    if world.size % workers:
        raise ConfigError(
            "K-FAC",
            [
                f"--kfac_gradient_workers {config.kfac_gradient_workers} of {world.size} ranks are {workers}, wanted a "
                f"number that divides {world.size}."
            ],
        )
    logger.info("K-FAC: %d linear layers; %d of %d ranks work for each", len(layers), workers, world.size)
    method = Method(
        damping=parse_stepwise(config.kfac_damping),
        factored_damping=config.kfac_factored_damping,
        kl_clip=config.kfac_kl_clip,
        stat_decay=config.kfac_stat_decay,
        factor_interval=parse_stepwise(config.kfac_factor_interval),
        inv_interval=parse_stepwise(config.kfac_inv_interval),
        max_rows=config.kfac_max_rows,
    )
    return Kfac(layers, method, world, workers)


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
