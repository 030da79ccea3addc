"""The runs of `benchmarks.training_gpu`, and what a run's updates amount to."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.training_step import Row

FULL_SPEED = 0.95
STEADY_SECONDS = 8.0
STEADY_UPDATES = 10
"""What is measured from full speed on, at least; then a run ends before its time."""
LEAST_SECONDS = 20.0
"""A run is not started with less."""


class Run(NamedTuple):
    """One run of run_pretraining.py, or one comparison."""

    id: str
    row: Row
    optimizer: str
    micro: int
    """Sequences of a micro-batch."""
    compiled: bool
    most_seconds: float
    """From its start; it ends as soon as enough was measured."""
    goal: str
    fresh: bool = False
    """Begin with empty caches of compilers."""


_LARGE_128 = Row("bert_large_uncased", 128, 1024, "BERT-large, s128, all full, LAMB")
_LARGE_512 = Row("bert_large_uncased", 512, 512, "BERT-large, Wikipedia-like lengths at s512, LAMB")
_BASE_128 = Row("bert_base_uncased", 128, 2048, "BERT-base, s128, all full, AdamW")
_BASE_512 = Row(
    "bert_base_uncased", 512, 64, "BERT-base, Wikipedia-like lengths at s512, AdamW, beside Hugging Face tuned"
)
_H1 = "1850 / 2150 / 2470 sequences/s on an H200"
_H2 = "850 / 1002 / 1170 sequences/s on an H200"
_H3 = "650k / 850k / 1.05M tokens/s on an H200"
RUNS = (  # what matters most first
    Run("H1", _LARGE_128, "lamb", 512, False, 60, _H1, fresh=True),
    Run("H4", _BASE_512, "adamw", 64, True, 150, "1.5 / 2 / 2.4 times"),
    Run("H2", _LARGE_512, "lamb", 256, False, 60, _H2),
    Run("H3", _BASE_128, "adamw", 1024, False, 60, _H3),
    Run("H1", _LARGE_128, "lamb", 512, True, 100, _H1, fresh=True),
    Run("H2", _LARGE_512, "lamb", 256, True, 70, _H2),
    Run("H3", _BASE_128, "adamw", 1024, True, 70, _H3),
)


class Update(NamedTuple):
    """One update of a run."""

    ended: float
    """Seconds since the process was started."""
    values: Mapping[str, Any]
    """Its row of metrics.jsonl."""

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return float(self.values["tokens_per_second"])


def time_for(run: Run, left: float) -> float:
    """Return the seconds that a run gets of those that are left.

    Raises:
        ValueError: if it could not even start in them.
    """
    if left < LEAST_SECONDS:
        raise ValueError(f"not started: {max(0.0, left):.0f} s are left; run again with --rows {run.id}.")
    return min(run.most_seconds, left)


def full_speed(updates: Sequence[Update]) -> int | None:
    """Return the first update within 5 % of the median rate of the later half, None if there are fewer than 4."""
    if len(updates) < 4:
        return None
    usual = statistics.median(update.rate for update in updates[len(updates) // 2 :])
    return next(index for index, update in enumerate(updates) if update.rate >= FULL_SPEED * usual)


def is_steady(updates: Sequence[Update]) -> bool:
    """Whether enough was measured."""
    start = full_speed(updates)
    if start is None:
        return False
    steady = updates[start + 1 :]
    return len(steady) >= STEADY_UPDATES and sum(each.values["step_seconds"] for each in steady) >= STEADY_SECONDS


def figures(updates: Sequence[Update]) -> dict[str, Any]:
    """Sum up a run.

    Raises:
        ValueError: if it came to no full speed and one update after it.
    """
    start = full_speed(updates)
    if start is None or start + 1 == len(updates):
        raise ValueError(f"{len(updates)} updates in the run's time are too few for a rate; give it more --seconds.")
    steady = [update.values for update in updates[start + 1 :]]
    seconds = sum(values["step_seconds"] for values in steady)

    def mean(key: str) -> float:
        return float(sum(values[key] * values["step_seconds"] for values in steady) / seconds)

    return {
        "tokens_per_second": round(mean("tokens_per_second"), 1),
        "sequences_per_second": round(mean("sequences_per_second"), 1),
        "mfu": None if steady[0]["mfu"] is None else round(mean("mfu"), 4),
        "updates": len(steady),
        "seconds": round(seconds, 2),
        "slowest_update": round(max(values["step_seconds"] for values in steady), 3),
        "data_wait_share": round(sum(values["data_wait_seconds"] for values in steady) / seconds, 4),
        "peak_memory_gib": round(steady[-1]["peak_memory_gib"], 2),
        "first_update_seconds": round(updates[0].ended, 1),
        "full_speed_seconds": round(updates[start].ended, 1),
        "loss": [round(updates[0].values["loss"], 3), round(steady[-1]["loss"], 3)],
    }


def choices_told(log: str) -> dict[str, str]:
    """Return what a run's console says of its attention, kernels and compilation, the last word of each."""
    found = re.findall(r"\b(attention|kernels|compile|precision): (.+)", log)
    return {name: said.strip()[:600] for name, said in found}


def rehearsed(run: Run) -> Run:
    """Return the same run so small that a CPU can take it."""
    return run._replace(row=run.row._replace(model="bert_tiny_uncased", batch_size=8), micro=4)
