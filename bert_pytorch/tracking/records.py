"""The rows of `metrics.jsonl`: their field names are its keys, in this order, after `event`.

Losses are natural-log means over all ranks and micro-batches of the step: per masked token (MLM), per pair (NSP).
"""

from typing import Any, Literal, NamedTuple

EndReason = Literal["finished", "session_limit", "signal", "time_limit", "failed"]
"""Why a session ended; launchers decide by it whether to start again."""


class StartRow(NamedTuple):
    """The start of a session: all that decides the samples and masks of its updates, so that each can be rebuilt."""

    step: int
    """Updates done, phases added up."""
    samples: int
    """Samples of this phase consumed."""
    phase_start: int
    """Updates done before this phase."""
    world_size: int
    """Ranks; they share updates and change nothing in them."""
    next_sentence: bool
    """Whether the model learns from next-sentence labels."""
    excluded_shards: list[str]
    """Damaged shards that are left out from the start on."""
    data: dict[str, Any]
    """The keys of `DataConfig`."""


class TrainRow(NamedTuple):
    """One update."""

    step: int
    """Updates done, phases added up."""
    epoch: int
    """Passes over the data completed before this update."""
    loss: float
    """Sum of the two below: nats."""
    mlm_loss: float
    """Nats per masked token."""
    nsp_loss: float | None
    """Nats per pair; None without the next-sentence task."""
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
    """Model FLOPs utilisation, 0 to 1; None where the device's peak is unknown."""
    peak_memory_gib: float
    """Most memory in use so far on rank 0: the device's, or the process's on a CPU."""
    samples: int
    """Samples of this phase consumed once this update is done."""
    sequences: int
    """Samples that this update drew, over all ranks."""


TRAIN_METRICS = tuple(name for name in TrainRow._fields if name not in ("samples", "sequences"))
"""Fields that are curves and columns of tables; where an update stands in its data, `metrics.jsonl` alone tells."""


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
