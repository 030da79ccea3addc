"""The loss and the metrics of a run over its updates, as a picture, from `metrics.jsonl`."""

import json
from pathlib import Path
from typing import Any

from bert_pytorch.pictures import saved_figure


def save_curves(path: Path, metrics: Path) -> None:
    """Write a PNG: the training loss, and each metric of the evaluations.

    Args:
        path: of the picture.
        metrics: the run's `metrics.jsonl`.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    train, evaluated = _of(rows, "train"), _of(rows, "eval")
    with saved_figure(path, (9, 7 if evaluated else 4)) as figure:
        top = figure.add_subplot(2 if evaluated else 1, 1, 1)
        top.plot([row["step"] for row in train], [row["loss"] for row in train], linewidth=0.8)
        top.set(ylabel="loss of an update", xlabel="updates")
        if evaluated:
            bottom = figure.add_subplot(2, 1, 2, sharex=top)
            for name in (name for name in evaluated[0] if name not in ("event", "step")):
                bottom.plot(
                    [row["step"] for row in evaluated], [row[name] for row in evaluated], marker="o", label=name
                )
            bottom.set(ylabel="evaluation", xlabel="updates")
            bottom.legend()


def _of(rows: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["event"] == event]
