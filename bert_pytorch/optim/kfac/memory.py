"""What K-FAC takes in memory, by formula: for `--dry_run`, before anything is built."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from bert_pytorch.optim.kfac.assignment import Assignment
from bert_pytorch.optim.kfac.layers import sizes, statistics_dtype
from bert_pytorch.optim.kfac.state import basis_shapes, factor_shapes


class KfacMemory(NamedTuple):
    """Bytes on one rank, by what they are for."""

    averages: int
    """Running factors, on every rank."""
    eigenbases: int
    """Of the layers that a rank works for: the most that any rank keeps."""
    measuring: int
    """Sums over rows, during updates that measure."""

    @property
    def total(self) -> int:
        """All of it; the inputs that are kept until their backward pass come on top in updates that measure."""
        return sum(self)


def memory_of(layers: Mapping[str, nn.Linear], ranks: int, workers: int, *, folded: bool = True) -> KfacMemory:
    """Return what the rank with most of it has.

    Args:
        layers: to precondition; on the meta device as well.
        ranks: of the run.
        workers: ranks that keep a layer's eigenbasis.
        folded: whether averages are kept as triangles.
    """
    assignment = Assignment.by_cost({name: sizes(layer) for name, layer in layers.items()}, ranks, workers)
    squares = {name: _bytes(layer, [(size, size) for size in sizes(layer)]) for name, layer in layers.items()}
    bases = {name: _bytes(layer, basis_shapes(layer)) for name, layer in layers.items()}
    averages = sum(_bytes(layer, factor_shapes(layer)) for layer in layers.values())
    return KfacMemory(
        averages=averages if folded else sum(squares.values()),
        eigenbases=max(
            sum(size for name, size in bases.items() if assignment.works_for(rank, name)) for rank in range(ranks)
        ),
        measuring=sum(squares.values()),
    )


def _bytes(layer: nn.Linear, shapes: "list[tuple[int, int]] | tuple[tuple[int, ...], ...]") -> int:
    return statistics_dtype(layer).itemsize * sum(math.prod(shape) for shape in shapes)
