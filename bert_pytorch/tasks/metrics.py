"""Metrics of sequence tasks, by their definitions, in float64 NumPy; tests compare them with scikit-learn and SciPy."""
# n examples, L classes

import numpy as np


def confusion_matrix(wanted: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Count examples by class: int64 (L, L), rows the true classes, columns the predicted ones.

    Args:
        wanted: int64 (n,), true classes.
        found: int64 (n,), predicted classes.
        classes: L.
    """
    return np.bincount(wanted * classes + found, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrix: np.ndarray) -> float:
    """Return the part of examples on the diagonal of a confusion matrix."""
    return float(np.trace(matrix) / max(matrix.sum(), 1))


def f1_by_class(matrix: np.ndarray) -> np.ndarray:
    """Return each class's 2 TP / (2 TP + FP + FN), float64 (L,); 0 for a class that neither occurs nor is predicted."""
    right = np.diag(matrix).astype(float)
    either = matrix.sum(axis=0) + matrix.sum(axis=1)
    return 2 * right / np.maximum(either, 1)


def macro_f1(matrix: np.ndarray) -> float:
    """Return the mean of `f1_by_class` over the classes that occur or are predicted."""
    present = matrix.sum(axis=0) + matrix.sum(axis=1) > 0
    return float(f1_by_class(matrix)[present].mean()) if present.any() else 0.0


def matthews_correlation(matrix: np.ndarray) -> float:
    """Return the correlation of true and predicted classes (Gorodkin 2004, eq. 8); 0 where either is constant."""
    counts = matrix.astype(float)
    true, predicted, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    covariance = np.trace(counts) * total - true @ predicted
    spread = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def micro_f1(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return 2 TP / (2 TP + FP + FN) over all examples and classes, bool (n, L) each; 0 where all are False."""
    right = int((wanted & found).sum())
    return 2 * right / max(int(wanted.sum()) + int(found.sum()), 1)


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear correlation of two series, float64 (n,) each; 0 where either is constant."""
    a, b = first - first.mean(), second - second.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b / spread) if spread > 0 else 0.0


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear correlation of ranks, equal values sharing their mean rank."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    return (ends - (sizes - 1) / 2)[group]
