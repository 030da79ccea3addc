"""K-FAC over the layers of a model and the ranks of a run (Osawa et al. 2019; Pauloski et al. 2021, "KAISA").

In updates that are due the layers are watched and the factors' running averages follow; less often they are decomposed,
each layer's on one rank; every update's gradients are solved in the eigenbases at hand.
"""
# I inputs of a layer, the bias's constant among them; O its outputs

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bert_pytorch.optim.kfac.assignment import Assignment
from bert_pytorch.optim.kfac.exchange import Exchange
from bert_pytorch.optim.kfac.factors import Eigenbasis, Factors, kl_scale
from bert_pytorch.optim.kfac.layers import gradient_matrix, put_gradient, sizes, statistics_dtype
from bert_pytorch.optim.kfac.method import Method
from bert_pytorch.optim.kfac.state import basis_shapes, checked_state, kfac_state
from bert_pytorch.optim.kfac.statistics import Watch, factors_of
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.groups import Grid, make_grid

logger = logging.getLogger(__name__)


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
        self._assignment = Assignment.by_cost(
            {name: sizes(layer) for name, layer in layers.items()}, world.size, gradient_workers or world.size
        )
        self._grid: Grid | None = None
        """Made with all ranks together, so not before the first update."""
        self._watch = Watch(layers, method.max_rows)
        self._exchange: Exchange | None = None
        self._step = 0
        self._loss_terms = self._gradient_scale = 1.0
        self._factors: dict[str, Factors] = {}
        self._bases: dict[str, Eigenbasis] = {}
        self._decomposed: list[str] = []
        """Layers with an eigenbasis, on the ranks that work for them."""
        self._failures: Counter[str] = Counter()

    def begin(self, step: int, *, loss_terms: float, gradient_scale: float) -> None:
        """Watch the passes of update `step` where it is due, or where nothing is known yet."""
        self._step, self._loss_terms, self._gradient_scale = step, loss_terms, gradient_scale
        self._grid = self._grid or make_grid(self._world, self._assignment.width)
        self._watch.stop()
        if self._exchange is not None:
            self._exchange.drop()
            self._exchange = None
        if not self._factors or self._method.factor_interval.is_due(step):
            self._watch.start(seed=step * self._world.size + self._world.rank)

    @torch.no_grad()
    def passes_done(self) -> None:
        """Begin to add up what the ranks saw."""
        seen = self._watch.stop()
        if seen:
            self._exchange = Exchange(seen, self._world)

    def precondition(self, *, learning_rate: float) -> None:
        """Bring factors and eigenbases up to date and replace the gradients."""
        self._learn()
        if self._factors and (not self._decomposed or self._method.inv_interval.is_due(self._step)):
            self._decompose()
        self._replace_gradients(learning_rate)

    def failures(self) -> int:
        """Return how many statistics were not finite and how many decompositions failed, of all layers."""
        return self._failures.total()

    @torch.no_grad()
    def _learn(self) -> None:
        if self._exchange is None:
            return
        new: dict[str, Factors] = {}
        finite, counted = [], []
        for name, sums, counts in self._exchange.arrivals():
            new[name] = factors_of(sums, counts, self._loss_terms, self._gradient_scale)
            finite.append(torch.stack([part.isfinite().all() for part in new[name]]).all())
            counted.append(counts[1] > 0)
        self._exchange = None
        good, found = torch.stack([torch.stack(finite), torch.stack(counted)]).tolist()  # the one wait for the device
        for name, is_finite, has_rows in zip(new, good, found, strict=True):
            if not has_rows:
                continue  # a layer that this update did not use
            if is_finite:
                old = self._factors.get(name)
                self._factors[name] = new[name] if old is None else old.mixed(new[name], self._method.stat_decay)
            else:
                self._failed("the statistics of %s in update %d are not finite and were left out", name)

    @torch.no_grad()
    def _decompose(self) -> None:
        """Decompose each layer's factors on its owner and send the eigenbases to those who work with them.

        A layer whose decomposition fails keeps the eigenbasis that it has; without one its gradient stays as it is.
        """
        grid, rank, owners = self._grid, self._world.rank, self._assignment.owners
        assert grid is not None
        names = [name for name in self._layers if name in self._factors]
        failed_here = dict.fromkeys(names, 0.0)
        for name in names:
            if owners[name] == rank:
                basis = Eigenbasis.of(self._factors[name])
                if basis is None:
                    failed_here[name] = 1.0
                else:
                    self._bases[name] = basis
        failed = {name: count > 0 for name, count in zip(names, self._world.sum([*failed_here.values()]), strict=True)}
        for name in names:
            if failed[name]:
                self._failed("the factors of %s could not be decomposed in update %d; it keeps what it had", name)
            elif self._assignment.works_for(rank, name):
                if owners[name] != rank:
                    self._bases[name] = self._empty_basis(name)
                for part in self._bases[name]:
                    grid.row.send(part, owners[name])
        known = self._decomposed
        self._decomposed = [name for name in names if not failed[name] or name in known]
        if not known:
            self._tell_scale()

    def _tell_scale(self) -> None:
        """Say once a session what damping is to be compared with."""
        relative = self._method.relative_damping
        largest = sorted(float(basis.largest_curvature(relative=relative)) for basis in self._bases.values())
        if largest:
            logger.info(
                "K-FAC: largest curvature of a layer%s %.1e to %.1e, median %.1e; damping is %.1e",
                " over its mean" if relative else "",
                largest[0], largest[-1], largest[len(largest) // 2], self._method.damping.at(self._step),
            )  # fmt: skip

    def _failed(self, what: str, name: str) -> None:
        """Count a failure, the same on every rank, and tell the first of its kind."""
        self._failures[what] += 1
        if self._failures[what] == 1:
            logger.warning(f"K-FAC: {what}; told once, counted as kfac_failures in the metrics", name, self._step)

    @torch.no_grad()
    def _replace_gradients(self, learning_rate: float) -> None:
        method = self._method
        damping = method.damping.at(self._step)
        solved: dict[str, Tensor] = {}
        products = []
        for name in self._decomposed:
            layer = self._layers[name]
            if layer.weight.grad is None:
                continue
            gradient = gradient_matrix(layer)
            if self._assignment.works_for(self._world.rank, name):
                solved[name] = (
                    self._bases[name]
                    .solve(gradient, damping, factored=method.factored_damping, relative=method.relative_damping)
                    .contiguous()
                )
            else:
                solved[name] = torch.empty_like(gradient)
            self._send_in_column(name, solved[name])
            products.append((solved[name] * gradient).sum(dtype=torch.float64))
        if not solved:
            return
        scale = torch.ones((), dtype=torch.float64)
        if method.kl_clip > 0:
            scale = kl_scale(torch.stack(products), learning_rate, method.kl_clip)
        for name, gradient in solved.items():
            put_gradient(self._layers[name], gradient * scale.to(gradient.dtype))

    def _send_in_column(self, name: str, tensor: Tensor) -> None:
        """Send what a layer's worker holds to the one rank of every other row that stands in this rank's column."""
        assert self._grid is not None
        self._grid.column.send(tensor, self._assignment.source_for(self._world.rank, name))

    def _empty_basis(self, name: str) -> Eigenbasis:
        weight, dtype = self._layers[name].weight, statistics_dtype(self._layers[name])
        shapes = basis_shapes(self._layers[name])
        return Eigenbasis(*(torch.empty(shape, dtype=dtype, device=weight.device) for shape in shapes))

    def state_dict(self) -> dict[str, Any]:
        """Return factors and the eigenbases in use, whole on rank 0."""
        bases = {}
        for name in self._decomposed:
            works = self._assignment.works_for(self._world.rank, name)
            basis = self._bases[name] if works else self._empty_basis(name)
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
        rank = self._world.rank
        self._bases = {name: basis for name, basis in bases.items() if self._assignment.works_for(rank, name)}
