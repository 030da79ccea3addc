"""K-FAC over the layers of a model and the ranks of a run (Osawa et al. 2019; Pauloski et al. 2021, "KAISA").

In updates that are due the layers are watched and the factors' running averages follow; less often they are decomposed,
each layer's on one rank; every update's gradients are solved in the eigenbases at hand.
"""
# I inputs of a layer, the bias's constant among them; O its outputs

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bert_pytorch.optim.kfac.assignment import assign_by_cost
from bert_pytorch.optim.kfac.factors import Eigenbasis, Factors, kl_scale
from bert_pytorch.optim.kfac.layers import gradient_matrix, put_gradient, sizes, statistics_dtype
from bert_pytorch.optim.kfac.state import basis_shapes, checked_state, kfac_state
from bert_pytorch.optim.kfac.statistics import Watch
from bert_pytorch.optim.kfac.stepwise import Stepwise
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.groups import Grid, make_grid

logger = logging.getLogger(__name__)


class Method(NamedTuple):
    """The numbers of the method; values by update."""

    damping: Stepwise
    """λ."""
    factored_damping: bool
    kl_clip: float
    """κ; 0 for none."""
    stat_decay: float
    """Of the running averages at each of their updates."""
    factor_interval: Stepwise
    """Updates from one that is watched to the next."""
    inv_interval: Stepwise
    """Updates from one decomposition to the next."""
    max_rows: int | None = None
    """Rows of a layer's call that statistics take; None: all."""


class Kfac:
    """The preconditioner; see `optim.preconditioner.Preconditioner` for what is called when.

    Args:
        layers: to precondition, by name, the same on every rank.
        method: how.
        world: the ranks, connected.
        gradient_workers: how many ranks solve for a layer and keep its eigenbasis; the others are sent the result.
            Divides the number of ranks: all of them send least often, 1 takes the least memory.
    """

    def __init__(
        self, layers: Mapping[str, nn.Linear], method: Method, world: World, gradient_workers: int | None = None
    ) -> None:
        self._layers = layers
        self._method = method
        self._world = world
        self._workers = gradient_workers or world.size
        self._grid: Grid | None = None
        """Made with all ranks together, so not before the first update."""
        self._owners = assign_by_cost(
            {name: sum(n**3 for n in sizes(layer)) for name, layer in layers.items()}, world.size
        )
        self._watch = Watch(layers, method.max_rows)
        self._step = 0
        self._factors: dict[str, Factors] = {}
        self._bases: dict[str, Eigenbasis] = {}
        self._decomposed: list[str] = []
        """Layers with an eigenbasis, on the ranks that work for them."""
        self._told_not_finite = False

    def begin(self, step: int) -> None:
        """Watch the passes of update `step` where it is due, or where nothing is known yet."""
        self._step = step
        self._grid = self._grid or make_grid(self._world, self._workers)
        self._watch.stop()
        if not self._factors or self._method.factor_interval.is_due(step):
            self._watch.start(seed=step * self._world.size + self._world.rank)

    def precondition(self, *, learning_rate: float, loss_terms: float, gradient_scale: float) -> None:
        """Bring factors and eigenbases up to date and replace the gradients."""
        self._learn(loss_terms, gradient_scale)
        if self._factors and (not self._decomposed or self._method.inv_interval.is_due(self._step)):
            self._decompose()
        self._replace_gradients(learning_rate)

    @torch.no_grad()
    def _learn(self, loss_terms: float, gradient_scale: float) -> None:
        seen = self._watch.stop()
        if not seen:
            return
        new = {name: sums.factors(self._world.add, loss_terms, gradient_scale) for name, sums in seen.items()}
        finite = torch.stack([torch.stack([part.isfinite().all() for part in new[name]]).all() for name in seen])
        counted = torch.stack([sums.counts[1] > 0 for sums in seen.values()])
        good, found = torch.stack([finite, counted]).tolist()  # the one wait for the device
        for name, is_finite, has_rows in zip(seen, good, found, strict=True):
            if not has_rows:
                continue  # a layer that this update did not use
            if is_finite:
                old = self._factors.get(name)
                self._factors[name] = new[name] if old is None else old.mixed(new[name], self._method.stat_decay)
            elif not self._told_not_finite:
                self._told_not_finite = True
                logger.warning(
                    "K-FAC: the statistics of %s in update %d are not finite and were left out; told once",
                    name,
                    self._step,
                )

    @torch.no_grad()
    def _decompose(self) -> None:
        """Decompose each layer's factors on its owner and send the eigenbases to those who work with them."""
        grid = self._grid
        assert grid is not None
        self._decomposed = [name for name in self._layers if name in self._factors]
        for name in self._decomposed:
            if self._owners[name] == self._world.rank:
                self._bases[name] = Eigenbasis.of(self._factors[name])
        for name in self._decomposed:
            if not self._works_for(name):
                continue
            if self._owners[name] != self._world.rank:
                self._bases[name] = self._empty_basis(name)
            for part in self._bases[name]:
                grid.row.send(part, self._owners[name])

    @torch.no_grad()
    def _replace_gradients(self, learning_rate: float) -> None:
        damping = self._method.damping.at(self._step)
        solved: dict[str, Tensor] = {}
        products = []
        for name in self._decomposed:
            layer = self._layers[name]
            if layer.weight.grad is None:
                continue
            gradient = gradient_matrix(layer)
            if self._works_for(name):
                basis = self._bases[name]
                solved[name] = basis.solve(gradient, damping, factored=self._method.factored_damping).contiguous()
            else:
                solved[name] = torch.empty_like(gradient)
            self._send_in_column(name, solved[name])
            products.append((solved[name] * gradient).sum(dtype=torch.float64))
        if not solved:
            return
        scale = torch.ones((), dtype=torch.float64)
        if self._method.kl_clip > 0:
            scale = kl_scale(torch.stack(products), learning_rate, self._method.kl_clip)
        for name, gradient in solved.items():
            put_gradient(self._layers[name], gradient * scale.to(gradient.dtype))

    def _works_for(self, name: str) -> bool:
        return self._owners[name] // self._workers == self._world.rank // self._workers

    def _send_in_column(self, name: str, tensor: Tensor) -> None:
        """Send what a layer's worker holds to the one rank of every other row that stands in this rank's column."""
        assert self._grid is not None
        row, column = self._owners[name] // self._workers, self._world.rank % self._workers
        self._grid.column.send(tensor, row * self._workers + column)

    def _empty_basis(self, name: str) -> Eigenbasis:
        weight, dtype = self._layers[name].weight, statistics_dtype(self._layers[name])
        shapes = basis_shapes(self._layers[name])
        return Eigenbasis(*(torch.empty(shape, dtype=dtype, device=weight.device) for shape in shapes))

    def state_dict(self) -> dict[str, Any]:
        """Return factors and the eigenbases in use, whole on rank 0."""
        bases = {}
        for name in self._decomposed:
            basis = self._bases[name] if self._works_for(name) else self._empty_basis(name)
            for part in basis:
                self._send_in_column(name, part)
            if self._world.is_first:
                bases[name] = basis
        return kfac_state(self._factors, bases)

    def load_state_dict(self, state: dict[str, Any], where: str) -> None:
        """Take over factors and eigenbases, on this rank those that it works with.

        Raises:
            InputError: if a layer or a shape is not this model's.
        """
        self._factors, bases = checked_state(state, self._layers, where)
        self._decomposed = list(bases)
        self._bases = {name: basis for name, basis in bases.items() if self._works_for(name)}
