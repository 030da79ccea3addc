"""The front door of pretraining: read the configuration, join the other ranks, then train, evaluate or only look."""

import sys

import torch

from bert_pytorch.config.command_line import Resolved, parse_settings
from bert_pytorch.errors import EXIT_DONE, EXIT_FAILED, EXIT_STOPPED, BertPytorchError, ToldElsewhereError, report
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.dry_run import describe_run
from bert_pytorch.pretraining.evaluate_only import evaluate_only
from bert_pytorch.pretraining.run import pretrain
from bert_pytorch.runtime.distributed import World, discover_world, lost_ranks_explained
from bert_pytorch.tracking.console import console_log

PROGRAM = "run_pretraining.py"
DESCRIPTION = "Pretrain a BERT on shards of your own text. A second start in the same --output_dir continues the run."


def main() -> int:
    """Run the program; returns its exit code."""
    world = discover_world()
    try:
        resolved = parse_settings(PretrainingConfig, sys.argv[1:], program=PROGRAM, description=DESCRIPTION)
    except BertPytorchError as error:
        if world.is_first:
            raise
        return error.exit_code  # every rank is given the same words; rank 0 tells what is wrong with them
    try:
        with lost_ranks_explained(world):
            return _run(resolved._replace(settings=resolved.settings.with_run_name()), world)
    except ToldElsewhereError as error:
        return error.exit_code
    except BertPytorchError as error:
        if world.is_first:
            raise
        report(f"[rank {world.rank}] {error}")
        return error.exit_code


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
