"""Which rank decomposes which layer's factors, and which ranks keep the result (Pauloski et al. 2021, section 4.3)."""

from collections.abc import Mapping
from typing import NamedTuple


class Assignment(NamedTuple):
    """Work shared out over ranks that stand in rows: a layer's owner decomposes, its row keeps that and solves."""

    owners: Mapping[str, int]
    """Rank by layer."""
    width: int
    """Ranks in a row."""

    @classmethod
    def by_cost(cls, sizes: Mapping[str, tuple[int, int]], ranks: int, width: int) -> "Assignment":
        """Share out layers of these sizes (inputs, outputs); a decomposition costs the cube of its size."""
        return cls(assign_by_cost({name: sum(n**3 for n in pair) for name, pair in sizes.items()}, ranks), width)

    def works_for(self, rank: int, name: str) -> bool:
        """Whether a rank keeps a layer's eigenbasis and solves for it."""
        return self.owners[name] // self.width == rank // self.width

    def source_for(self, rank: int, name: str) -> int:
        """Return which of the layer's workers stands in this rank's column, to send it what it lacks."""
        return self.owners[name] // self.width * self.width + rank % self.width


def assign_by_cost(costs: Mapping[str, float], ranks: int) -> dict[str, int]:
    """Give each layer to the rank with the least work so far, the costliest first; the same on every rank.

    No rank gets more than 4/3 of what the best assignment would give the busiest (Graham 1969).
    """
    loads = [0.0] * ranks
    owners: dict[str, int] = {}
    for name, cost in sorted(costs.items(), key=lambda item: (-item[1], item[0])):
        owner = loads.index(min(loads))
        owners[name] = owner
        loads[owner] += cost
    return owners
