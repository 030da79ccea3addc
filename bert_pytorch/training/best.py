"""The best evaluation of a run so far, by one metric: which checkpoint is kept, when the run stops waiting."""

from dataclasses import asdict, dataclass
from typing import Any

from bert_pytorch.tracking.records import TaskEvalRow


@dataclass
class Best:
    """Changes with each evaluation and travels in checkpoints, so that a resumed run judges as one never stopped."""

    metric: str
    """Its name; higher is better."""
    patience: int | None
    """Evaluations in a row without an improvement after which the run ends; None: never."""
    value: float | None = None
    """Of the best evaluation; None before the first."""
    step: int | None = None
    """Updates done when it was made."""
    waited: int = 0
    """Evaluations since then."""

    @property
    def gives_up(self) -> bool:
        """Whether the run ends for lack of improvement."""
        return self.patience is not None and self.waited >= self.patience

    def judge(self, row: TaskEvalRow) -> None:
        """Take an evaluation into account; equal to the best is no improvement, and neither is a metric of NaN."""
        value = row.metrics[self.metric]
        if value > (float("-inf") if self.value is None else self.value):
            self.value, self.step, self.waited = value, row.step, 0
        else:
            self.waited += 1

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; the metric and the patience are the configuration's."""
        return {name: value for name, value in asdict(self).items() if name not in ("metric", "patience")}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.value, self.step, self.waited = state["value"], state["step"], int(state["waited"])
