"""The loss and the metrics of a run over its updates, as a picture, from `metrics.jsonl`."""

import json
from pathlib import Path
from typing import Any

from bert_pytorch.errors import MissingDependencyError
from bert_pytorch.files import atomic_path


def save_curves(path: Path, metrics: Path) -> None:
    """Write a PNG: the training loss, and each metric of the evaluations.

    Args:
        path: of the picture.
        metrics: the run's `metrics.jsonl`.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            f"{path.name} needs matplotlib ({error}). Install it: pip install -r requirements-extras.txt"
        ) from error
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    train, evaluated = _of(rows, "train"), _of(rows, "eval")
    figure = Figure(figsize=(9, 7 if evaluated else 4), layout="constrained")
    FigureCanvasAgg(figure)
    top = figure.add_subplot(2 if evaluated else 1, 1, 1)
    top.plot([row["step"] for row in train], [row["loss"] for row in train], linewidth=0.8)
    top.set(ylabel="loss of an update", xlabel="updates")
    if evaluated:
        bottom = figure.add_subplot(2, 1, 2, sharex=top)
        for name in (name for name in evaluated[0] if name not in ("event", "step")):
            bottom.plot([row["step"] for row in evaluated], [row[name] for row in evaluated], marker="o", label=name)
        bottom.set(ylabel="evaluation", xlabel="updates")
        bottom.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _of(rows: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["event"] == event]
