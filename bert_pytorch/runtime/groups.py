"""Parts of the ranks that pass tensors among themselves."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

from bert_pytorch.runtime.distributed import World


class Members(NamedTuple):
    """Some of the ranks, this one among them."""

    members: tuple[int, ...]
    group: dist.ProcessGroup | None
    """None where nobody else belongs to it."""

    def send(self, tensor: torch.Tensor, source: int) -> None:
        """Copy a tensor from rank `source` into the same one of every member; all call this together."""
        if self.group is not None:
            dist.broadcast(tensor, src=source, group=self.group)


class Grid(NamedTuple):
    """The ranks as a table, `width` in a row: rank r stands in row r // width, column r % width."""

    row: Members
    """This rank's row."""
    column: Members
    """This rank's column: one rank of each row."""


def make_grid(world: World, width: int) -> Grid:
    """Lay out the ranks, `width` of them in a row; all ranks call this together.

    Args:
        world: all ranks, connected.
        width: divides their number.
    """
    if world.size % width:
        raise ValueError(f"{world.size} ranks do not stand in rows of {width}.")
    rows = [range(first, first + width) for first in range(0, world.size, width)]
    columns = [range(first, world.size, width) for first in range(width)]
    return Grid(_own(world, rows), _own(world, columns))


def _own(world: World, parts: Sequence[Sequence[int]]) -> Members:
    """Make a group of each part, which every rank has to do for all of them, and return this rank's."""
    groups = [dist.new_group(list(part)) if len(part) > 1 else None for part in parts]
    return next(Members(tuple(part), group) for part, group in zip(parts, groups, strict=True) if world.rank in part)
