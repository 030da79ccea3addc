"""What a session is given, what it opens and builds, and the folder it owns."""

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bert_pytorch.checkpoints.store import CheckpointStore
from bert_pytorch.files import exclusive_lock, remove_partial_files
from bert_pytorch.interop.matching import LoadedWeights
from bert_pytorch.interop.sources import CHECKPOINTS, EXPORTED
from bert_pytorch.models.bert import BertForPreTraining
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.size import num_parameters
from bert_pytorch.optim.config import build_optimizer
from bert_pytorch.optim.state import load_optimizer_state
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.pretraining.parts import Corpus, check_fit, for_vocabulary, open_corpus, pick_model_config
from bert_pytorch.pretraining.start import Start, refuse_other_model, report_changes
from bert_pytorch.pretraining.weights import put_initial_weights
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision, choose_precision
from bert_pytorch.runtime.stopping import StopRequests

logger = logging.getLogger(__name__)


class Learner(NamedTuple):
    """What training changes."""

    model: BertForPreTraining
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


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


def claim_folder(config: PretrainingConfig, held: contextlib.ExitStack) -> CheckpointStore:
    """Make the output folder, take its lock for as long as `held` lasts, and clear away what a killed run left.

    Raises:
        InputError: if another process is writing there.
    """
    output_dir = config.resolved_output_dir()
    output_dir.mkdir(parents=True, exist_ok=True)
    held.enter_context(exclusive_lock(output_dir, "runs"))
    if config.overwrite:
        _remove_run(output_dir, config.log_prefix)
    for folder in (output_dir, output_dir / CHECKPOINTS):
        remove_partial_files(folder)
    return CheckpointStore(output_dir / CHECKPOINTS, config.keep_checkpoints)


def _remove_run(output_dir: Path, log_prefix: str) -> None:
    """Remove what a run writes and nothing else: the folder may hold other things of its owner."""
    for folder in (CHECKPOINTS, "tensorboard", EXPORTED):
        shutil.rmtree(output_dir / folder, ignore_errors=True)
    names = [f"{log_prefix}{ending}" for ending in (".txt", "_metrics.csv", "_run_config.json")]
    for name in (*names, "metrics.jsonl"):
        (output_dir / name).unlink(missing_ok=True)


def open_session(
    config: PretrainingConfig,
    world: World,
    device: torch.device,
    stop: StopRequests,
    store: CheckpointStore,
    start: Start,
    state: dict[str, Any] | None,
    initial: LoadedWeights | None,
) -> Session:
    """Open the data, settle the shape of the model and check that everything fits together."""
    corpus = open_corpus(config)
    saved = None if initial is None else initial.config
    if state is not None:
        saved = ModelConfig.model_validate(state["model_config"])
    model_config = for_vocabulary(pick_model_config(config, saved), corpus.vocabulary)
    assert config.input_dir is not None
    check_fit(model_config, corpus.training, config.input_dir)
    if state is not None and start.checkpoint is not None:
        refuse_other_model(state, model_config.model_dump(mode="json"), corpus.vocabulary, start.checkpoint)
    precision = choose_precision(config, device)
    logger.info("precision: %s (%s)", precision.name, precision.reason)
    output_dir = config.resolved_output_dir()
    return Session(config, output_dir, world, device, precision, stop, store, start, corpus, model_config)


def build_learner(session: Session, state: dict[str, Any] | None, initial: LoadedWeights | None) -> Learner:
    """Build the model and its optimizer and bring them to where the session begins."""
    config, start = session.config, session.start
    model = BertForPreTraining(session.model_config, attention=config.attention, seed=config.seed)
    model.checkpoint_activations = config.checkpoint_activations
    if state is not None:
        model.load_state_dict(state["model"])
    elif initial is not None and config.init_checkpoint is not None:
        put_initial_weights(model, initial, config.init_checkpoint, session.corpus.vocabulary)
    model.to(session.device)
    logger.info("model: %s parameters", f"{num_parameters(session.model_config):,}")
    logger.info("attention: %s", model.select_attention(session.device))
    optimizer = build_optimizer(config, model.named_parameters())
    scaler = session.precision.gradient_scaler()
    if state is not None:
        load_optimizer_state(optimizer, state["optimizer"], str(start.checkpoint))
        if state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        if start.kind == "resume":
            report_changes(state["run_config"], config.model_dump(mode="json"))
    return Learner(model, optimizer, scaler)
