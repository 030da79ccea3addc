"""`run_glue.py`: one run of the engine, or many side by side with one table."""

from collections.abc import Iterator

import torch
from pydantic import Field

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.errors import EXIT_DONE, ConfigError
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.glue_runs import run_all
from bert_pytorch.finetuning.main import exit_code
from bert_pytorch.finetuning.run import finetune
from bert_pytorch.finetuning.session import TaskKind
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.front_door import run_on_ranks
from bert_pytorch.tasks.glue.config import GlueConfig
from bert_pytorch.tasks.glue.task import SUBMISSIONS, GlueTask
from bert_pytorch.tasks.task import Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

PROGRAM = "run_glue.py"
DESCRIPTION = "Fine-tune on GLUE's tasks, evaluate by its official metrics, write submissions."


class GlueRunConfig(GlueConfig, FinetuningConfig):
    """All keys of `run_glue.py`."""

    seeds: tuple[int, ...] = ()
    """Run each task with each of these seeds, and tell mean and standard deviation; by default --seed alone."""
    parallel_tasks: int = Field(1, ge=1)
    """Runs side by side, each on a GPU of its own, or on its part of the cores."""
    mnli_init: bool = False
    """RTE, MRPC and STS-B begin from the MNLI model of the same seed, which is trained first (Liu et al. 2019)."""

    def combination_problems(self) -> Iterator[str]:
        """Several runs want what each of them can do alone."""
        yield from super().combination_problems()
        if any(seed < 0 for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            yield f"--seeds: found {' '.join(map(str, self.seeds))}, wanted different whole numbers ≥ 0."
        if self.mnli_init and "mnli" not in self.tasks():
            yield "--mnli_init wants an MNLI model: add mnli to --task_name, or name one as --init_checkpoint."


def build(config: GlueRunConfig, tokenizer: Tokenizer, settled: Settled | None) -> GlueTask:
    """Make the one task."""
    assert config.data_dir is not None
    (name,) = config.tasks()
    return GlueTask(name, config.data_dir, config.diagnostic_file, tokenizer, config.max_seq_length, settled)


KIND = TaskKind("sequence_classification", build, (SUBMISSIONS,))


def main() -> int:
    """Run the program; returns its exit code."""
    return run_on_ranks(GlueRunConfig, _run, program=PROGRAM, description=DESCRIPTION)


def _run(resolved: Resolved[GlueRunConfig], world: World) -> int:
    config = resolved.settings
    if len(config.tasks()) == 1 and not config.seeds:
        torch.set_flush_denormal(True)
        return exit_code(finetune(resolved, world, KIND), config)
    if world.size > 1:
        problem = "several tasks or seeds are run side by side by --parallel_tasks; start it without torchrun."
        raise ConfigError(PROGRAM, [problem])
    run_all(config, config.tasks(), config.seeds or (config.seed,), config.parallel_tasks, mnli_init=config.mnli_init)
    return EXIT_DONE
