"""Adding up what all ranks saw of an update: begun when the passes are done, waited for when factors are needed."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bert_pytorch.optim.kfac.factors import Factors
from bert_pytorch.optim.kfac.statistics import LayerSums
from bert_pytorch.runtime.distributed import World


class Arrived(NamedTuple):
    """A layer's sums over all ranks."""

    name: str
    sums: Factors
    counts: Tensor
    """float64 (2,), see `LayerSums`."""


class Exchange:
    """Sums on their way; every rank makes one after the same update, over the same layers.

    A layer is folded while those before it are under way, and may be used while those behind it are.

    Args:
        seen: what this rank saw, by layer; emptied, so that no more than one layer is held twice.
        world: the ranks.
    """

    def __init__(self, seen: dict[str, LayerSums], world: World) -> None:
        self._counts = torch.stack([sums.counts for sums in seen.values()])
        self._counts_arrive = world.start_adding(self._counts)
        self._layers = []
        for name in list(seen):
            folded = seen.pop(name).folded()
            self._layers.append((name, folded, [world.start_adding(part) for part in folded]))

    def arrivals(self) -> Iterator[Arrived]:
        """Yield the layers in order, each as soon as it is there; to be taken to the end, or `drop`ped."""
        self._counts_arrive()
        for (name, folded, waits), counts in zip(self._layers, self._counts, strict=True):
            for wait in waits:
                wait()
            yield Arrived(name, folded, counts)

    def drop(self) -> None:
        """Wait for all and forget it: what is under way needs its memory until it is there."""
        for _ in self.arrivals():
            pass
