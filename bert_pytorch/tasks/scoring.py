"""What tasks over whole sequences share: their three losses, and scores turned into predictions."""
# B sequences, L classes

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.models.losses import cross_entropy_sum
from bert_pytorch.tasks.problems import Problem


def loss_sum(problem: Problem, scores: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the loss summed over sequences, ().

    Cross-entropy; for several classes at once the mean over classes of binary cross-entropies; for a number the squared
    error: as `transformers` has them.

    Args:
        problem: which.
        scores: (B, L), L 1 for a number.
        labels: int64 (B,), float32 (B, L), or float32 (B,).
        class_weights: (L,), for single classes.
    """
    if problem == "regression":
        return (scores.squeeze(1) - labels).square().sum()
    if problem == "multi_label":
        return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / scores.shape[1]
    if class_weights is None:
        return cross_entropy_sum(scores, labels)
    weights = class_weights.to(scores)
    return F.cross_entropy(scores, labels, weight=weights, reduction="sum")


def stacked(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Return scores of all sequences as float64 (n, L)."""
    return np.stack(scores).astype(np.float64)


def probabilities(problem: Problem, scores: np.ndarray) -> np.ndarray:
    """Return each class's probability, float64 (n, L): softmax, or by itself for several classes at once."""
    values = torch.from_numpy(scores)
    return (values.sigmoid() if problem == "multi_label" else values.softmax(dim=1)).numpy()


def predictions(
    problem: Problem, label_names: Sequence[str], scores: np.ndarray, threshold: float
) -> Iterator[dict[str, Any]]:
    """Yield what is said of each sequence, as it stands in files of predictions.

    Args:
        problem: which.
        label_names: L of them.
        scores: float64 (n, L).
        threshold: probability from which on one of several classes is said.
    """
    chances = probabilities(problem, scores).tolist()
    for row, likely in zip(scores, chances, strict=True):
        by_name = dict(zip(label_names, (round(chance, 6) for chance in likely), strict=True))
        if problem == "regression":
            yield {"value": float(row[0])}
        elif problem == "multi_label":
            said = [name for name, chance in zip(label_names, likely, strict=True) if chance >= threshold]
            yield {"labels": said, "probabilities": by_name}
        else:
            yield {"label": label_names[int(row.argmax())], "probabilities": by_name}
