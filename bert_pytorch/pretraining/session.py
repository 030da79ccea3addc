"""What a session is given, and what it opens and builds."""

import logging
from pathlib import Path
from typing import NamedTuple

import torch

from bert_pytorch.checkpoints.format import Checkpoint
from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.distillation import TaughtModel, Teacher
from bert_pytorch.models.layers import blocks_between_attentions
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.models.size import num_parameters
from bert_pytorch.optim.config import build_optimizer
from bert_pytorch.optim.kfac.config import build_preconditioner
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.optim.sharded import Sharding
from bert_pytorch.optim.state import load_optimizer_state
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.parts import Corpus, check_fit, for_pairs, for_vocabulary, open_corpus, pick_model_config
from bert_pytorch.pretraining.start import Start
from bert_pytorch.pretraining.teaching import build_teacher
from bert_pytorch.pretraining.weights import put_initial_weights, put_teacher_layers
from bert_pytorch.runtime.compilation import compile_modules
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.training.resuming import refuse_other_model, report_changes

logger = logging.getLogger(__name__)


class Learner(NamedTuple):
    """What training changes, and whom it learns from."""

    model: PretrainingModel
    optimizer: torch.optim.Optimizer
    sharding: Sharding
    scaler: torch.amp.GradScaler
    preconditioner: Preconditioner | None
    teacher: Teacher | None
    """Never saved, only named: a session that continues reads it again."""

    def kfac_failures(self) -> int | None:
        """Return what the preconditioner has gone on without, None where there is none."""
        return None if self.preconditioner is None else self.preconditioner.failures()

    def trained(self) -> PretrainingModel | TaughtModel:
        """Return what gives the losses of a micro-batch."""
        return self.model if self.teacher is None else TaughtModel(self.model, self.teacher)


class Session(NamedTuple):
    """What a session is given and what it has chosen, fixed until its end."""

    config: PretrainingConfig
    output_dir: Path
    world: World
    device: torch.device
    precision: Precision
    stop: StopRequests
    store: CheckpointStore
    start: Start
    corpus: Corpus
    model_config: ModelConfig
    settled: PretrainingConfig
    """`config` with --local_batch_sizes as the ranks have settled it: what batches are made by."""


def open_session(
    config: PretrainingConfig,
    world: World,
    device: torch.device,
    precision: Precision,
    stop: StopRequests,
    store: CheckpointStore,
    start: Start,
    checkpoint: Checkpoint | None,
    initial: LoadedWeights | None,
) -> Session:
    """Open the data, settle the shape of the model and check that everything fits together."""
    saved = None if initial is None else initial.config
    if checkpoint is not None:
        saved = ModelConfig.model_validate(checkpoint.model_config)
    shape = pick_model_config(config, saved)
    corpus = open_corpus(config, lowercase=shape.lowercase is not False)
    model_config = for_vocabulary(shape, corpus.vocabulary)
    if initial is not None and config.model_config_file is None:
        model_config = for_pairs(model_config, corpus.training)
    check_fit(model_config, corpus.training, " ".join(config.input_dir))
    if checkpoint is not None and start.checkpoint is not None:
        refuse_other_model(checkpoint, model_config, corpus.vocabulary, start.checkpoint)
    logger.info("precision: %s (%s)", precision.name, precision.reason)
    return Session(config, config.folder(), world, device, precision, stop, store, start, corpus, model_config, config)


def build_learner(
    session: Session,
    checkpoint: Checkpoint | None,
    initial: LoadedWeights | None,
    teacher: LoadedWeights | None,
) -> Learner:
    """Build the model, its optimizer and its teacher and bring them to where the session begins."""
    config, start, vocabulary = session.config, session.start, session.corpus.vocabulary
    model = build_model(session.model_config, attention=config.attention, seed=config.seed)
    model.checkpoint_activations = config.checkpoint_activations
    if checkpoint is not None:
        model.load_state_dict(checkpoint.model)
    elif initial is not None and config.init_checkpoint is not None:
        put_initial_weights(model, initial, config.init_checkpoint, vocabulary)
    elif teacher is not None and config.teacher is not None and config.init_from_teacher_layers:
        put_teacher_layers(model, teacher, config.teacher, vocabulary)
    model.to(session.device)
    if config.compile:
        compile_modules(blocks_between_attentions(model), session.device)
    logger.info("model: %s parameters", f"{num_parameters(session.model_config):,}")
    optimizer = build_optimizer(config, model.named_parameters())
    sharding = Sharding(optimizer, session.world, shards=config.shard_optimizer)
    scaler = session.precision.gradient_scaler()
    preconditioner = build_preconditioner(config, model, session.world)
    if checkpoint is not None:
        load_optimizer_state(optimizer, sharding.own_part(checkpoint.optimizer), str(start.checkpoint))
        if preconditioner is not None and checkpoint.preconditioner is not None:
            preconditioner.load_state_dict(checkpoint.preconditioner, str(start.checkpoint))
        if checkpoint.scaler:
            scaler.load_state_dict(checkpoint.scaler)
        if start.kind == "resume":
            now = {**config.model_dump(mode="json"), "sequences": session.corpus.training.num_sequences}
            report_changes({**checkpoint.run_config, **checkpoint.choices}, now)
    frozen = None
    if teacher is not None:
        frozen = build_teacher(
            config,
            teacher,
            student=session.model_config,
            vocabulary=vocabulary,
            sequence_length=session.corpus.training.sequence_length,
            device=session.device,
            precision=session.precision,
        )
    return Learner(model, optimizer, sharding, scaler, preconditioner, frozen)
