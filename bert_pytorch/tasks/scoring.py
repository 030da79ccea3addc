"""What tasks over whole sequences share: their three losses, and scores turned into predictions."""
# B sequences, L classes

from collections.abc import Sequence

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
