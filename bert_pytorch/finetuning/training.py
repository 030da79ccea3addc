"""Training a task's model: the parts of a `TrainingRun`, and what it leaves behind."""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from bert_pytorch.checkpoints.format import Checkpoint, DataPosition, vocabulary_entries
from bert_pytorch.checkpoints.reading import load_checkpoint
from bert_pytorch.finetuning.batches import TaskBatch, TaskFeed
from bert_pytorch.finetuning.objective import LearningModel, TaskObjective
from bert_pytorch.finetuning.results import evaluate_while_training
from bert_pytorch.finetuning.session import Session
from bert_pytorch.interop.huggingface import CONFIG
from bert_pytorch.interop.sources import EXPORTED
from bert_pytorch.interop.task_models import export_task_model
from bert_pytorch.models.flops import BatchWork, training_flops
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.optim.config import build_optimizer
from bert_pytorch.optim.schedules import learning_rate_factor
from bert_pytorch.optim.sharded import Sharding
from bert_pytorch.optim.state import load_optimizer_state
from bert_pytorch.runtime.device import peak_memory_gib, storable
from bert_pytorch.runtime.peak import known_peak_flops, peak_of_all
from bert_pytorch.tasks.task import TRAIN
from bert_pytorch.tracking.records import EndReason, EndRow, TaskStartRow, TaskTrainRow
from bert_pytorch.tracking.session import complete_metrics, open_tracker
from bert_pytorch.tracking.tracker import Tracker
from bert_pytorch.training.best import Best
from bert_pytorch.training.clock import StepClock
from bert_pytorch.training.fast_paths import FastPaths, sample_lengths, settle_fast_paths
from bert_pytorch.training.loop import Limits, Progress, TrainingRun, train
from bert_pytorch.training.resuming import report_changes
from bert_pytorch.training.step import OptimizerStep

logger = logging.getLogger(__name__)


class Learner(NamedTuple):
    """What training changes."""

    model: TaskModel
    optimizer: torch.optim.Optimizer
    sharding: Sharding
    scaler: torch.amp.GradScaler
    best: Best | None
    """None where evaluations decide nothing."""
    progress: Progress


def train_task(session: Session, model: TaskModel) -> EndReason:
    """Train to the end or to a stop; a finished run has its best weights in `model` then, and an exported `model/`."""
    learner = session.world.together(lambda: _learner(session, model))
    last_step = total_updates(session)
    if learner.progress.step >= last_step or (learner.best is not None and learner.best.gives_up):
        logger.info("training is finished: %d updates are done. --overwrite starts anew.", learner.progress.step)
        session.world.on_first(
            lambda: complete_metrics(session.output_dir, EndRow("finished", learner.progress.step, 0.0, None))
        )
        _conclude(session, learner, exports=not _is_exported(session, learner))
        return "finished"
    reason = _train(session, learner, last_step)
    if reason == "finished":
        _conclude(session, learner, exports=True)
    return reason


def total_updates(session: Session) -> int:
    """Return the updates of the whole run."""
    config = session.config
    if config.max_steps is not None:
        return config.max_steps
    sequences = len(session.parts[TRAIN].examples) * config.num_train_epochs
    return max(1, math.ceil(sequences / config.train_batch_size - 1e-6))


def _learner(session: Session, model: TaskModel) -> Learner:
    config, checkpoint = session.config, session.beginning.checkpoint
    optimizer = build_optimizer(
        config, model.named_parameters(), layer_decay=config.layer_decay, layers=model.config.num_hidden_layers
    )
    sharding = Sharding(optimizer, session.world, shards=config.shard_optimizer)
    scaler = session.precision.gradient_scaler()
    judged = config.do_eval and (config.keep_best or config.early_stopping_patience is not None)
    best = Best(session.task.best_metric, config.early_stopping_patience) if judged else None
    progress = Progress(0, 0)
    if checkpoint is not None:
        load_optimizer_state(optimizer, sharding.own_part(checkpoint.optimizer), session.beginning.source)
        if checkpoint.scaler:
            scaler.load_state_dict(checkpoint.scaler)
        if best is not None and (saved := checkpoint.choices.get("best")):
            best.restore(saved)
        progress = Progress(checkpoint.step, checkpoint.data_position.samples)
        now = {**config.model_dump(mode="json"), "sequences": len(session.parts[TRAIN].examples)}
        report_changes({**checkpoint.run_config, **checkpoint.choices}, now)
    return Learner(model, optimizer, sharding, scaler, best, progress)


def _train(session: Session, learner: Learner, last_step: int) -> EndReason:
    config, progress = session.config, learner.progress
    first_step = progress.step
    session_end = last_step if config.steps is None else min(last_step, first_step + config.steps)
    sequences = len(session.parts[TRAIN].examples)
    checkpoint = session.beginning.checkpoint
    longest = int(session.parts[TRAIN].lengths.max())
    most = max(1, min(config.train_batch_size, config.max_tokens // longest))
    fast_paths = settle_fast_paths(
        learner.model,
        learner.optimizer,
        world=session.world,
        device=session.device,
        precision=session.precision,
        lengths=sample_lengths(most, longest, fixed_rows=False),
        fixed_rows=False,
        compiled=config.compile,
        saved={} if checkpoint is None else checkpoint.choices,
    )
    begins = "a new run" if checkpoint is None else f"continuing {session.beginning.source}"
    logger.info(
        "start: %s; updates %d to %d of %d sequences", begins, first_step + 1, last_step, config.train_batch_size
    )
    with open_tracker(
        session.output_dir,
        config,
        first_step=first_step,
        last_step=session_end,
        rank=session.world.rank,
        columns=TaskTrainRow._fields,
    ) as tracker:
        lowercase = session.beginning.vocabulary.lowercase
        tracker.start(TaskStartRow(first_step, progress.samples, session.world.size, lowercase, sequences))
        return train(_training_run(session, learner, fast_paths, tracker, last_step, session_end))


def _training_run(
    session: Session, learner: Learner, fast_paths: FastPaths, tracker: Tracker, last_step: int, session_end: int
) -> TrainingRun:
    config, progress, world = session.config, learner.progress, session.world
    features = session.parts[TRAIN]
    first_step = progress.step
    updates_an_epoch = math.ceil(len(features.examples) / config.train_batch_size)
    return TrainingRun(
        world=world,
        feed=TaskFeed(features, config, rank=world.rank, world_size=world.size),
        optimizer_step=_optimizer_step(session, learner),
        learning_rate_at=lambda step: (
            config.learning_rate * learning_rate_factor(step, max_steps=last_step, config=config)
        ),
        evaluate=(lambda step: evaluate_while_training(session, learner.model, step)) if config.do_eval else None,
        save=None if config.skip_checkpoint else _checkpoint_writer(session, learner, fast_paths, last_step),
        tracker=tracker,
        clock=StepClock(),
        stop=session.stop,
        limits=Limits(
            phase_start=0,
            last_step=last_step,
            session_end=session_end,
            checkpoint_interval=config.num_steps_per_checkpoint,
            eval_interval=config.eval_interval or updates_an_epoch,
            evaluates_every_end=False,
        ),
        progress=progress,
        logs=lambda step: config.logs(step, first_step=first_step, last_step=session_end),
        peak_memory_gib=lambda: peak_memory_gib(session.device),
        peak_flops=peak_of_all(world, known_peak_flops(session.device)),
        train_row=TaskTrainRow,
        best=learner.best,
    )


def _optimizer_step(session: Session, learner: Learner) -> OptimizerStep:
    learner.model.train()
    shape = learner.model.config.model_copy(update={"next_sentence": False})

    def flops_of(batch: TaskBatch) -> int:
        return training_flops(shape, BatchWork.of(batch.inputs))

    return OptimizerStep(
        session.world.parallelize(LearningModel(learner.model, session.task), session.device),
        learner.optimizer,
        world=session.world,
        device=session.device,
        precision=session.precision,
        scaler=learner.scaler,
        max_grad_norm=session.config.max_grad_norm,
        objective=TaskObjective(session.task),
        flops_of=flops_of,
        seed=session.config.seed,
        stop_requested=session.stop_requested,
        sharding=learner.sharding,
    )


def _checkpoint_writer(
    session: Session, learner: Learner, fast_paths: FastPaths, last_step: int
) -> Callable[[Progress], None]:
    config, best = session.config, learner.best
    sequences = len(session.parts[TRAIN].examples)

    def save(progress: Progress) -> None:
        optimizer = learner.sharding.state_dict()  # ranks may hold parts of it
        if not session.world.is_first:
            return
        checkpoint = Checkpoint(
            model=learner.model.state_dict(),
            model_config=learner.model.config.model_dump(mode="json"),
            **vocabulary_entries(session.beginning.vocabulary),
            step=progress.step,
            phase=1,
            phase_start=0,
            phase_end=progress.step == last_step,
            data_position=DataPosition(config.seed, progress.samples // sequences, progress.samples),
            optimizer=optimizer,
            scaler=learner.scaler.state_dict() if learner.scaler.is_enabled() else None,
            choices={
                "labels": list(session.task.label_names),
                "exported": dict(session.task.exported),
                "sequences": sequences,
                "best": None if best is None else best.state(),
                **fast_paths.choices(),
            },
            run_config=config.model_dump(mode="json"),
        )
        kept = {best.step} if best is not None and best.step is not None and config.keep_best else set()
        session.store.save(progress.step, storable(checkpoint.to_dict(), session.device), also_keep=kept)

    return save


def _conclude(session: Session, learner: Learner, *, exports: bool) -> None:
    """Go back to the best checkpoint and write the model."""
    config, best = session.config, learner.best
    if best is not None and best.step is not None and config.keep_best and best.step != learner.progress.step:
        if config.skip_checkpoint:
            logger.warning("the last weights are kept, not the best: there are no checkpoints (--skip_checkpoint)")
        else:
            logger.info("best: %s %.4f after %d updates, whose weights are kept", best.metric, best.value, best.step)
            path = session.store.path_of(best.step)
            state = session.world.together(lambda: load_checkpoint(path))
            learner.model.load_state_dict(state["model"])
    if exports:
        session.world.on_first(lambda: _export(session, learner.model))


def _is_exported(session: Session, learner: Learner) -> bool:
    exported = session.output_dir / EXPORTED / CONFIG
    checkpoint = session.store.path_of(learner.progress.step)
    return session.world.from_first(
        exported.exists() and checkpoint.exists() and exported.stat().st_mtime >= checkpoint.stat().st_mtime
    )


def _export(session: Session, model: TaskModel) -> None:
    folder = session.output_dir / EXPORTED
    task = session.task
    export_task_model(folder, model, session.beginning.vocabulary, task.label_names, task.exported)
    logger.info("model: %s (opens in transformers)", folder)
