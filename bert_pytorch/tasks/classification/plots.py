"""A confusion matrix as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_pytorch.pictures import saved_figure

MOST_CLASSES = 60
"""With more the names cannot be read any more, and are left out."""
_NUMBERS_UP_TO = 20


def save_confusion_matrix(path: Path, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Write a confusion matrix as a PNG; colours are parts of the true class, numbers are counts.

    Args:
        path: of the picture.
        matrix: int64 (L, L), rows the true classes.
        names: of the L classes.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    size = min(4 + 0.45 * len(names), 20)
    with saved_figure(path, (size + 1, size)) as figure:
        axes = figure.add_subplot()
        parts = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=axes, label="part of the true class")
        axes.set(xlabel="predicted", ylabel="true")
        if len(names) <= MOST_CLASSES:
            shown = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
            axes.set_xticks(range(len(names)), shown, rotation=45, ha="right", parse_math=False)
            axes.set_yticks(range(len(names)), shown, parse_math=False)
        if len(names) <= _NUMBERS_UP_TO:
            for row, column in np.ndindex(matrix.shape):
                colour = "white" if parts[row, column] > 0.5 else "black"
                axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour)
