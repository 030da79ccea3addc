"""From a session's parts to the run that the training loop takes: loader, optimizer step, evaluation, rates, rows."""

import logging
from collections.abc import Callable

from torch import nn

from bert_pytorch.data.fixed_rows import RowShape
from bert_pytorch.data.loader import TrainingLoader
from bert_pytorch.models.flops import BatchWork, forward_flops, linear_products, training_flops
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.optim.schedules import learning_rate_factor
from bert_pytorch.pretraining.parts import batch_maker, held_out_loader
from bert_pytorch.pretraining.recorded import RecordedModel, sample_rows
from bert_pytorch.pretraining.saving import checkpoint_writer
from bert_pytorch.pretraining.session import Learner, Session
from bert_pytorch.runtime.device import peak_memory_gib
from bert_pytorch.runtime.peak import known_peak_flops, measured_flops, peak_of_all
from bert_pytorch.tracking.records import EvalRow, TrainRow
from bert_pytorch.tracking.tracker import Tracker
from bert_pytorch.training.clock import StepClock
from bert_pytorch.training.evaluation import evaluate
from bert_pytorch.training.fast_paths import FastPaths
from bert_pytorch.training.feed import Feed
from bert_pytorch.training.loop import Limits, Progress, TrainingRun
from bert_pytorch.training.objective import PretrainingObjective
from bert_pytorch.training.step import OptimizerStep

logger = logging.getLogger(__name__)

MEASURED_TOKENS = 4096
"""Rows of the matrices by which --measure_peak measures: a micro-batch that is large enough to be fast."""


def assemble(
    session: Session, learner: Learner, fast_paths: FastPaths, tracker: Tracker, last_step: int, session_end: int
) -> TrainingRun:
    """Put together what `training.train` takes: data, the step, evaluation, saving, limits and what is told."""
    config, start = session.config, session.start
    loader = _training_loader(session)
    feed = Feed(loader, session.world, config.on_bad_shard)
    return TrainingRun(
        world=session.world,
        feed=feed,
        optimizer_step=_optimizer_step(session, learner, loader.row_shape),
        learning_rate_at=lambda step: (
            config.learning_rate
            * learning_rate_factor(step - config.previous_phase_end_step, max_steps=config.max_steps, config=config)
        ),
        evaluate=_evaluation(session, learner.model),
        save=None if config.skip_checkpoint else checkpoint_writer(session, learner, feed, fast_paths),
        tracker=tracker,
        clock=StepClock(),
        stop=session.stop,
        limits=Limits(
            phase_start=config.previous_phase_end_step,
            last_step=last_step,
            session_end=session_end,
            checkpoint_interval=config.num_steps_per_checkpoint,
            eval_interval=config.eval_interval,
        ),
        progress=Progress(start.step, start.samples),
        logs=lambda step: config.logs(step, first_step=start.step, last_step=session_end),
        peak_memory_gib=lambda: peak_memory_gib(session.device),
        peak_flops=_peak_flops(session),
        train_row=lambda **values: TrainRow(**values, kfac_failures=learner.kfac_failures()),
    )


def _training_loader(session: Session) -> TrainingLoader:
    config = session.settled
    loader = TrainingLoader(
        batch_maker(
            session.corpus.training,
            session.corpus.vocabulary,
            config,
            next_sentence=session.model_config.next_sentence,
        ),
        config,
        rank=session.world.rank,
        world_size=session.world.size,
    )
    if loader.row_shape is not None:
        logger.info("micro-batches: %s", loader.row_shape.describe())
    return loader


def _optimizer_step(session: Session, learner: Learner, rows: RowShape | None) -> OptimizerStep:
    model: nn.Module = learner.trained()
    if session.config.cuda_graphs:
        assert rows is not None
        sample = sample_rows(rows, session.device, next_sentence=session.model_config.next_sentence)
        model = RecordedModel(model, sample, session.precision)
        logger.info("CUDA graphs: a micro-batch's passes are recorded")
    return OptimizerStep(
        session.world.parallelize(model, session.device),
        learner.optimizer,
        world=session.world,
        device=session.device,
        precision=session.precision,
        scaler=learner.scaler,
        max_grad_norm=session.config.max_grad_norm,
        objective=PretrainingObjective(session.config.loss_weights()),
        flops_of=lambda batch: _flops(session, learner, BatchWork.of(batch)),
        seed=session.config.seed,
        stop_requested=lambda: session.stop.reason() is not None,
        preconditioner=learner.preconditioner,
        sharding=learner.sharding,
    )


def _flops(session: Session, learner: Learner, work: BatchWork) -> int:
    taught = 0 if learner.teacher is None else forward_flops(learner.teacher.config, work)
    return training_flops(session.model_config, work) + taught


def _evaluation(session: Session, model: PretrainingModel) -> Callable[[int], EvalRow | None] | None:
    held_out, config = session.corpus.evaluation, session.settled
    if held_out is None:
        return None
    next_sentence = session.model_config.next_sentence and held_out.has_next_sentence
    loader = held_out_loader(held_out, session.corpus.vocabulary, config, session.world, next_sentence=next_sentence)
    return lambda step: evaluate(
        model,
        loader,
        step=step,
        world=session.world,
        device=session.device,
        precision=session.precision,
        stop_requested=lambda: session.stop.reason() is not None,
    )


def _peak_flops(session: Session) -> float | None:
    """Return what `mfu` is measured against: the data sheet's, or this device's own rate at the model's shapes."""
    config, device = session.config, session.device
    if not config.measure_peak:
        return peak_of_all(session.world, known_peak_flops(device))
    products = linear_products(session.model_config, MEASURED_TOKENS, round(0.15 * MEASURED_TOKENS))
    shapes = [product.shape for product in products]
    total = session.world.sum([measured_flops(shapes, device, session.precision.dtype)])[0]
    mean = total / session.world.size
    logger.info("matrix products at the model's shapes: %.3g TFLOP/s a rank (mfu is of this)", mean / 1e12)
    return total
