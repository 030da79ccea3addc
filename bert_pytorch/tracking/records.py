"""The rows of `metrics.jsonl`: their field names are its keys, in this order, after `event`.

Losses are natural-log means over all ranks and micro-batches of the step: per masked token (MLM, soft targets),
per pair (NSP); the cosine loss is a mean of 0 to 2 over all tokens.
"""

from typing import Any, Literal, NamedTuple

EndReason = Literal["finished", "session_limit", "signal", "time_limit", "failed"]
"""Why a session ended; launchers decide by it whether to start again."""


class StartRow(NamedTuple):
    """The beginning of a session, with all that decides the data of its updates; `inspect batch` rebuilds them."""

    step: int
    """Updates done, phases added up."""
    samples: int
    """Samples of this phase consumed."""
    phase: int
    """1 for the first phase of a run."""
    phase_start: int
    """Updates done before this phase."""
    world_size: int
    """Ranks."""
    next_sentence: bool
    """Whether the model learns from next-sentence labels."""
    lowercase: bool
    """Casing of the vocabulary."""
    sequences: int
    """In the training data, shards that are left out included."""
    excluded_shards: list[str]
    """Damaged shards that are left out from the beginning, as `{number of the --input_dir}:{file}`."""
    data: dict[str, Any]
    """Every field of `DataConfig`, local paths made absolute."""


class ExcludeRow(NamedTuple):
    """A damaged shard that is left out from now on (`--on_bad_shard skip`)."""

    step: int
    """The first update without it, phases added up."""
    shard: str
    """`{number of the --input_dir}:{file}`."""
    sequences: int
    """In it."""
    reason: str
    """What is wrong with which of its rows."""


class TrainRow(NamedTuple):
    """One update."""

    step: int
    """Updates done, phases added up."""
    epoch: int
    """Passes over the data completed before this update."""
    loss: float
    """What training minimises: the sum of those below, weighted where there is a teacher."""
    mlm_loss: float
    """Nats per masked token."""
    nsp_loss: float | None
    """Nats per pair; None without the next-sentence task."""
    soft_target_loss: float | None
    """Temperature² times nats per masked token, away from a teacher's predictions; None where those are not learnt."""
    cosine_loss: float | None
    """1 - cosine to a teacher's last hidden state, per token; None where those are not learnt."""
    learning_rate: float
    """Of this update."""
    grad_norm: float
    """L2 norm over all parameters before clipping."""
    sequences_per_second: float
    """This update's own, over all ranks."""
    tokens_per_second: float
    """Real input tokens, this update's own, over all ranks."""
    step_seconds: float
    """Wall clock since the update before, waiting for data included."""
    data_wait_seconds: float
    """The part of it spent waiting for data."""
    mfu: float | None
    """Model FLOPs utilisation, 0 to 1: FLOP/s by `models.flops` over the peak of all devices (a GPU's by its data
    sheet, or measured by --measure_peak); None where the peak is unknown."""
    peak_memory_gib: float
    """Most memory in use so far on rank 0: the device's, or the process's on a CPU."""
    samples: int
    """Samples of this phase consumed once this update is done, over all ranks; those of skipped updates count."""
    sequences: int
    """The part of them that this update has drawn, those of damaged shards that are left out included."""
    kfac_failures: int | None = None
    """Layers' statistics that were not finite and decompositions that failed since the session began, each gone on
    without; None without --kfac."""


class TaskStartRow(NamedTuple):
    """The beginning of a fine-tuning session."""

    step: int
    """Updates done."""
    samples: int
    """Sequences consumed."""
    world_size: int
    """Ranks."""
    lowercase: bool
    """Casing of the vocabulary."""
    sequences: int
    """In the training part."""


class TaskTrainRow(NamedTuple):
    """One update of fine-tuning; fields that `TrainRow` has as well mean the same."""

    step: int
    """Updates done."""
    epoch: int
    """Passes over the data completed before this update's last sequence."""
    loss: float
    """The task's, a mean over all ranks and micro-batches."""
    learning_rate: float
    """Of this update."""
    grad_norm: float
    """L2 norm over all parameters before clipping."""
    sequences_per_second: float
    """This update's own, over all ranks."""
    tokens_per_second: float
    """Real input tokens, likewise."""
    step_seconds: float
    """Wall clock since the update before."""
    data_wait_seconds: float
    """The part of it spent waiting for data."""
    mfu: float | None
    """Model FLOPs utilisation, 0 to 1; None where the peak is unknown."""
    peak_memory_gib: float
    """Most memory in use so far on rank 0."""
    samples: int
    """Sequences consumed once this update is done."""
    sequences: int
    """Those of this update."""


class TaskEvalRow(NamedTuple):
    """One evaluation of a task while it trains."""

    step: int
    """Updates done."""
    metrics: dict[str, float]
    """Each stands in the row of `metrics.jsonl` under its own name."""


class EvalRow(NamedTuple):
    """One evaluation on held-out data."""

    step: int
    """Updates done."""
    mlm_loss: float
    """Nats per masked token."""
    mlm_accuracy: float
    """Fraction of masked tokens predicted exactly."""
    nsp_accuracy: float | None
    """Fraction of pairs; None without the next-sentence task."""
    masked_tokens: int
    """How many were evaluated."""


class EndRow(NamedTuple):
    """The end of a session; warm-up, compilation, evaluation and checkpointing are left out of its numbers."""

    reason: EndReason
    """Why it ended."""
    step: int
    """Updates done and saved."""
    train_seconds: float
    """Time of the measured updates."""
    tokens_per_second: float | None
    """Over the measured updates and all ranks; None if the session was too short to measure one."""


AnyStartRow = StartRow | TaskStartRow
AnyTrainRow = TrainRow | TaskTrainRow
AnyEvalRow = EvalRow | TaskEvalRow


def values_of(row: NamedTuple) -> dict[str, Any]:
    """Return a row's fields as they stand in `metrics.jsonl`, a task's metrics among them."""
    values: dict[str, Any] = row._asdict()
    metrics: dict[str, float] = values.pop("metrics", {})
    return values | metrics
