"""The training loop: optimizer updates until an end, with evaluation, checkpoints and rows for the trackers.

Who calls: `pretraining.assembly` and `finetuning.run`, which build every part of a `TrainingRun`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from bert_pytorch.errors import TrainingDivergedError
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.tracking.records import AnyEvalRow, AnyTrainRow, EndReason, EndRow, ExcludeRow, TaskEvalRow
from bert_pytorch.tracking.tracker import Tracker
from bert_pytorch.training.best import Best
from bert_pytorch.training.clock import StepClock, StepRates
from bert_pytorch.training.step import OptimizerStep, StepOutcome
from bert_pytorch.training.updates import Update, UpdateSource

logger = logging.getLogger(__name__)

MAX_SKIPS_IN_A_ROW = 30
"""fp16's loss scale falls from 2^16 below any useful value within 30 halvings; other precisions do not recover."""


@dataclass
class Progress:
    """How far a run has come; together with the seed it says which samples come next."""

    step: int
    """Updates done, phases added up."""
    samples: int
    """Samples consumed in this phase by finished updates."""


@dataclass(frozen=True)
class Limits:
    """Where a session ends, and what happens on the way; all in updates."""

    phase_start: int
    """Updates done before this phase."""
    last_step: int
    """Updates done when this phase is finished, phases added up."""
    session_end: int
    """Updates done when this session is over: `last_step`, or earlier by a session limit."""
    checkpoint_interval: int
    """Updates between checkpoints."""
    eval_interval: int
    """Updates between evaluations; 0 to evaluate only at the ends of a phase."""
    evaluates_every_end: bool = True
    """Whether to evaluate before the first update of a phase and at a session's limit too, not only when it is due and
    when all is done."""

    def reached(self, step: int) -> EndReason | None:
        """Return why to end after `step` updates, or None to go on."""
        if step >= self.last_step:
            return "finished"
        return "session_limit" if step >= self.session_end else None

    def due(self, step: int, interval: int) -> bool:
        """Whether something that happens every `interval` updates of this phase happens now."""
        return interval > 0 and (step - self.phase_start) % interval == 0


@dataclass(frozen=True)
class TrainingRun:
    """All that the loop works with; `progress` is the one thing that changes."""

    world: World
    feed: UpdateSource
    optimizer_step: OptimizerStep
    learning_rate_at: Callable[[int], float]
    """Learning rate of update number `step` (phases added up)."""
    evaluate: Callable[[int], AnyEvalRow | None] | None
    """Held-out results after `step` updates; None without a held-out set."""
    save: Callable[[Progress], None] | None
    """Write a checkpoint; None to write none."""
    tracker: Tracker
    clock: StepClock
    stop: StopRequests
    limits: Limits
    progress: Progress
    logs: Callable[[int], bool]
    """Whether an update has a row of metrics."""
    peak_memory_gib: Callable[[], float]
    peak_flops: float | None
    """FLOP/s that the devices of all ranks could do together; None where that is unknown."""
    train_row: Callable[..., AnyTrainRow]
    """The type of an update's row; its fields are given by name."""
    best: Best | None = None
    """Judges each evaluation: an improvement is saved at once, and too long without one ends the phase."""


def train(run: TrainingRun) -> EndReason:
    """Take updates until the phase is finished, the session is over or a stop is asked for; then save and say why."""
    first_step = run.progress.step
    try:
        if first_step == run.limits.phase_start and run.limits.evaluates_every_end:
            _evaluate(run)
        run.clock.restart()
        reason = _take_updates(run)
        ends = ("finished", "session_limit") if run.limits.evaluates_every_end else ("finished",)
        if reason in ends and not run.limits.due(run.progress.step, run.limits.eval_interval):
            _evaluate(run)
        if run.progress.step > first_step:
            _save(run)  # after the evaluation: a phase's last checkpoint stands for all that the phase owes
    except BaseException:
        run.tracker.end(_end_row(run, "failed"))
        raise
    finally:
        run.feed.close()
    run.tracker.end(_end_row(run, reason))
    return reason


def _take_updates(run: TrainingRun) -> EndReason:
    progress, limits = run.progress, run.limits
    skips_in_a_row = 0
    while (reason := _reached(run)) is None:
        with run.clock.waiting_for_data():
            update = run.feed.update(progress.samples, progress.step - limits.phase_start)
        step = progress.step + 1
        _tell_exclusions(run, step)
        learning_rate = run.learning_rate_at(step)
        outcome = run.optimizer_step(update, step=step, learning_rate=learning_rate)
        if outcome.stopped:
            return "signal" if run.world.any(run.stop.reason() == "signal") else "time_limit"
        progress.samples = update.end_position
        rates = run.clock.finish_step(update.num_sequences, outcome.num_tokens)
        if outcome.skipped:
            skips_in_a_row = _count_skip(skips_in_a_row, step)
            continue
        progress.step = step
        if run.logs(step) or skips_in_a_row:  # after a skip the samples do not follow from the row before
            run.tracker.train(_train_row(run, update, outcome, rates, learning_rate))
        skips_in_a_row = 0
        if limits.due(step, limits.eval_interval):
            _evaluate(run)
        improved = run.best is not None and run.best.step == step
        if (limits.due(step, limits.checkpoint_interval) or improved) and _reached(run) is None:
            _save(run)
    return reason


def _reached(run: TrainingRun) -> EndReason | None:
    if run.best is not None and run.best.gives_up:
        return "finished"
    return run.limits.reached(run.progress.step)


def _tell_exclusions(run: TrainingRun, step: int) -> None:
    for shard, sequences, reason in run.feed.new_exclusions():
        logger.warning(
            "left out from update %d on: %s with its %s sequences. %s", step, shard, f"{sequences:,}", reason
        )
        run.tracker.exclusion(ExcludeRow(step, shard, sequences, reason))


def _count_skip(skips_in_a_row: int, step: int) -> int:
    skips_in_a_row += 1
    logger.warning("update %d skipped: its gradients are not finite (%d in a row)", step, skips_in_a_row)
    if skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
        raise TrainingDivergedError(
            f"{skips_in_a_row} updates in a row had gradients that are not finite, at update {step}. The checkpoints "
            "before are kept. Start again with a lower --learning_rate, a longer --warmup_proportion, or "
            "--precision fp32."
        )
    return skips_in_a_row


def _evaluate(run: TrainingRun) -> None:
    if run.evaluate is None:
        return
    with run.clock.excluded():
        row = run.evaluate(run.progress.step)
    if row is not None:  # None: a stop was asked for, which the loop will see before its next micro-batch
        run.tracker.evaluation(row)
        if run.best is not None and isinstance(row, TaskEvalRow):
            run.best.judge(row)


def _save(run: TrainingRun) -> None:
    if run.save is None:
        return
    with run.clock.excluded():
        run.tracker.flush()  # every row up to a checkpoint is on disk before the checkpoint is
        run.save(run.progress)


def _train_row(
    run: TrainingRun, update: Update, outcome: StepOutcome, rates: StepRates, learning_rate: float
) -> AnyTrainRow:
    return run.train_row(
        step=run.progress.step,
        epoch=update.epoch,
        loss=outcome.loss,
        **outcome.losses,
        learning_rate=learning_rate,
        grad_norm=outcome.grad_norm,
        sequences_per_second=rates.sequences_per_second,
        tokens_per_second=rates.tokens_per_second,
        step_seconds=rates.step_seconds,
        data_wait_seconds=rates.data_wait_seconds,
        mfu=outcome.model_flops / rates.step_seconds / run.peak_flops if run.peak_flops else None,
        peak_memory_gib=run.peak_memory_gib(),
        samples=update.end_position,
        sequences=update.num_sequences,
    )


def _end_row(run: TrainingRun, reason: EndReason) -> EndRow:
    totals = run.clock.totals()
    return EndRow(reason, run.progress.step, totals.train_seconds, totals.tokens_per_second)
