"""The front door that the fine-tuning programs share."""

from typing import TypeVar

import torch

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.run import finetune
from bert_pytorch.finetuning.session import TaskKind
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.front_door import run_on_ranks
from bert_pytorch.tracking.records import EndReason

C = TypeVar("C", bound=FinetuningConfig)


def main_of(settings: type[C], kind: TaskKind, *, program: str, description: str) -> int:
    """Read the command line, join the other ranks, fine-tune; returns the exit code.

    Args:
        settings: the program's configuration: `FinetuningConfig` and the task's keys.
        kind: what it fine-tunes for.
        program: its name, for messages.
        description: for `--help`.
    """

    def run(resolved: Resolved[C], world: World) -> int:
        torch.set_flush_denormal(True)
        return exit_code(finetune(resolved, world, kind), resolved.settings)

    return run_on_ranks(settings, run, program=program, description=description)


def exit_code(reason: EndReason, config: FinetuningConfig) -> int:
    """Return what a program ends with: "start again to continue" needs a saved state."""
    if reason not in ("signal", "time_limit"):
        return EXIT_DONE
    return EXIT_FAILED if config.skip_checkpoint and config.do_train else EXIT_STOPPED
