"""Which rank decomposes which layer's factors: a share of equal cost for each (Pauloski et al. 2021, section 4.3)."""

from collections.abc import Mapping


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
