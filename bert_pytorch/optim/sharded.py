"""`--shard_optimizer`: a rank keeps moments of its own parameters only (ZeRO stage 1; Rajbhandari et al. 2020, 5.1).

Whole parameters are shared out, since LAMB's trust ratio is of a whole one.  The optimizer is the same as without:
LAMB and AdamW make a parameter's moments when they first see its gradient and pass over parameters without one.  So a
rank lets go of the gradients that are others', once all are averaged, measured and clipped, steps, and sends what it
has updated to the others.  Files hold all moments, whoever kept them.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bert_pytorch.optim.kfac.assignment import assign_by_cost
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.passing import gather_tensors, spread

MOMENTS = 2
"""Numbers that LAMB and AdamW keep for each of a parameter's."""


class Sharding:
    """Which rank keeps the state of which parameter; without sharding, every rank that of all.

    Args:
        optimizer: over the same named parameters on every rank; makes state only of parameters with gradients.
        world: all ranks, connected before the first update.
        shards: whether to share them out.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, world: World, *, shards: bool) -> None:
        self._optimizer = optimizer
        self._world = world
        self._shards = shards and world.size > 1
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._owners = owners_of([parameter.numel() for parameter in self._parameters], world.size)
        self._own = {at for at, owner in enumerate(self._owners) if owner == world.rank}

    @contextlib.contextmanager
    def each_its_own(self) -> Iterator[None]:
        """Let a step inside update this rank's own parameters; afterwards every rank has all, with the same bits."""
        if self._shards:
            for at, parameter in enumerate(self._parameters):
                if at not in self._own:
                    parameter.grad = None
        yield
        if self._shards:
            spread(self._world, self._parameters, self._owners)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state as if it were not sharded, on rank 0; all ranks call this together.

        On other ranks it lacks what they do not keep.  What rank 0 received lies on the CPU.
        """
        whole = self._optimizer.state_dict()
        if not self._shards:
            return whole
        names = [(at, name) for at, state in whole["state"].items() for name in state]
        all_names = self._world.gather(names)
        all_tensors = gather_tensors(self._world, [whole["state"][at][name] for at, name in names])
        gathered: dict[int, dict[str, torch.Tensor]] = {}
        for names, tensors in zip(all_names, all_tensors, strict=True):
            for (at, name), tensor in zip(names, tensors, strict=True):
                gathered.setdefault(at, {})[name] = tensor
        return {**whole, "state": dict(sorted(gathered.items()))} if self._world.is_first else whole

    def own_part(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return an optimizer's whole state without what other ranks keep, for `load_optimizer_state`."""
        if not self._shards:
            return state
        return {**state, "state": {at: moments for at, moments in state["state"].items() if at in self._own}}


def owners_of(sizes: Sequence[int], ranks: int) -> list[int]:
    """Return the rank of each parameter, so that all keep about as much; the same on every rank.

    No rank keeps more than its equal part and the largest parameter together.

    Args:
        sizes: elements of each parameter.
        ranks: number of ranks.
    """
    owners = assign_by_cost({f"{at:08}": size for at, size in enumerate(sizes)}, ranks)
    return [owners[f"{at:08}"] for at in range(len(sizes))]


def largest_state(parameters: Sequence[torch.Tensor], ranks: int) -> int:
    """Return the bytes of moments on the rank that keeps most; parameters may be on the meta device."""
    kept = [0] * ranks
    for parameter, owner in zip(parameters, owners_of([each.numel() for each in parameters], ranks), strict=True):
        kept[owner] += MOMENTS * parameter.nbytes
    return max(kept)
