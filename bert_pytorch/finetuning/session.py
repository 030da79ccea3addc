"""What a fine-tuning session is given, and what it opens and builds."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.finetuning.beginning import Beginning, build_model
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.parts import Parts
from bert_pytorch.models.layers import blocks_between_attentions
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.runtime.compilation import compile_modules
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.tasks.task import Settled, Task
from bert_pytorch.tokenization.tokenizer import Tokenizer, tokenizer_from_vocabulary

logger = logging.getLogger(__name__)

CHECKPOINTS = "finetune_ckpts"


class TaskKind(NamedTuple):
    """What a program fine-tunes for."""

    head: Head
    build: Callable[[Any, Tokenizer, Settled | None], Task]
    """From the program's configuration, the checkpoint's tokenizer, and what is settled already: by the model that is
    evaluated, or the run that is continued.  None: labels follow from the training file."""
    writes: tuple[str, ...] = ()
    """Files and folders in the output folder that the task may write: --overwrite removes them."""


class Session(NamedTuple):
    """What a session is given and has chosen, fixed until its end."""

    config: FinetuningConfig
    world: World
    device: torch.device
    precision: Precision
    stop: StopRequests
    store: CheckpointStore
    beginning: Beginning
    task: Task
    parts: Parts

    @property
    def output_dir(self) -> Path:
        """The run's folder."""
        return self.config.folder()

    def stop_requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.stop.reason() is not None


def open_session(
    config: FinetuningConfig,
    kind: TaskKind,
    world: World,
    device: torch.device,
    precision: Precision,
    stop: StopRequests,
    store: CheckpointStore,
    beginning: Beginning,
) -> Session:
    """Make the task, with the checkpoint's tokenizer."""
    logger.info("precision: %s (%s)", precision.name, precision.reason)
    settled = None if config.do_train and beginning.checkpoint is None else beginning.settled
    task = kind.build(config, tokenizer_from_vocabulary(beginning.vocabulary), settled)
    return Session(config, world, device, precision, stop, store, beginning, task, Parts(task, config))


def build_on_device(session: Session) -> TaskModel:
    """Build the model with the weights that it begins from."""
    config = session.config
    model = build_model(config, session.beginning, session.task)
    model.checkpoint_activations = config.checkpoint_activations
    model.to(session.device)
    if config.compile:
        compile_modules(blocks_between_attentions(model), session.device)
    return model
