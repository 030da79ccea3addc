"""The front door of pretraining: train, evaluate or only look."""

import sys

import torch

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.dry_run import describe_run
from bert_pytorch.pretraining.evaluate_only import evaluate_only
from bert_pytorch.pretraining.run import pretrain
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.front_door import run_on_ranks
from bert_pytorch.tracking.console import console_log

PROGRAM = "run_pretraining.py"
DESCRIPTION = "Pretrain a BERT on shards of your own text. A second start in the same --output_dir continues the run."


def main() -> int:
    """Run the program; returns its exit code."""
    return run_on_ranks(
        PretrainingConfig,
        lambda resolved, world: _run(resolved._replace(settings=resolved.settings.with_run_name()), world),
        program=PROGRAM,
        description=DESCRIPTION,
    )


def _run(resolved: Resolved[PretrainingConfig], world: World) -> int:
    config = resolved.settings
    torch.set_flush_denormal(True)
    if config.dry_run:
        if world.is_first:
            sys.stdout.write(describe_run(resolved, world.size))
        return EXIT_DONE
    if config.max_steps == 0:
        with console_log(None, rank=world.rank):
            evaluate_only(config, world)
        return EXIT_DONE
    reason = pretrain(resolved, world)
    if reason in ("signal", "time_limit"):
        return EXIT_FAILED if config.skip_checkpoint else EXIT_STOPPED  # "start again to continue" needs a saved state
    return EXIT_DONE
