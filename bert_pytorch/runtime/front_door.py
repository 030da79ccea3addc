"""The front door of a program that runs on several ranks: one of them tells what all of them met."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from bert_pytorch.config.command_line import Resolved, parse_settings
from bert_pytorch.errors import BertPytorchError, ToldElsewhereError, report
from bert_pytorch.runtime.distributed import World, discover_world, lost_ranks_explained
from bert_pytorch.runtime.ranks import discover_ranks
from bert_pytorch.runtime.rendezvous import RendezvousConfig

S = TypeVar("S", bound=RendezvousConfig)


def run_on_ranks(settings: type[S], run: Callable[[Resolved[S], World], int], *, program: str, description: str) -> int:
    """Read the command line, join the other ranks and run.

    Args:
        settings: the program's configuration.
        run: does the work; returns an exit code.
        program: its name, for messages and `--help`.
        description: for `--help`.

    Returns:
        The exit code.

    Raises:
        BertPytorchError: on rank 0.
    """
    ranks = discover_ranks(os.environ)
    try:
        resolved = parse_settings(settings, sys.argv[1:], program=program, description=description)
    except BertPytorchError as error:
        if ranks.rank == 0:
            raise
        return error.exit_code  # every rank is given the same words; rank 0 tells what is wrong with them
    world = discover_world(resolved.settings)
    try:
        with lost_ranks_explained(world):
            return run(resolved, world)
    except ToldElsewhereError as error:
        return error.exit_code
    except BertPytorchError as error:
        if world.is_first:
            raise
        report(f"[rank {world.rank}] {error}")
        return error.exit_code
