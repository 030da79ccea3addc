"""Classification of a person's own texts, as the fine-tuning engine takes it."""
# n examples, L classes

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.errors import ConfigError, InputError, MissingDependencyError
from bert_pytorch.files import atomic_write_text, sha256_of
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.tasks import metrics
from bert_pytorch.tasks.classification.config import ClassificationConfig
from bert_pytorch.tasks.classification.labels import balanced_weights, discover, encode
from bert_pytorch.tasks.classification.plots import save_confusion_matrix
from bert_pytorch.tasks.classification.reading import Examples, read_examples
from bert_pytorch.tasks.features import Features, sequence_features
from bert_pytorch.tasks.problems import PROBLEM_TYPES, Problem, problem_of
from bert_pytorch.tasks.scoring import loss_sum, predictions, probabilities, stacked
from bert_pytorch.tasks.task import TRAIN, Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

VALIDATION, TEST = "validation", "test"
PREDICTIONS, PICTURE = "predictions.jsonl", "confusion_matrix.png"
WRITES = PREDICTIONS, PICTURE, f"test_{PICTURE}"
METRICS: dict[Problem, tuple[str, ...]] = {
    "single_label": ("accuracy", "f1", "mcc"),
    "multi_label": ("f1", "accuracy"),
    "regression": ("pearson", "spearman"),
}
"""By problem; the first is the default of --best_metric."""


class ClassificationTask:
    """Implements `tasks.task.Task`.

    Args:
        config: files and columns.
        tokenizer: of the checkpoint.
        max_seq_length: tokens of a sequence at most.
        settled: labels and problem of the model that is used further; None: they are discovered.
    """

    head: Head = "sequence_classification"
    eval_parts = (VALIDATION,)
    predict_parts = (TEST,)

    def __init__(
        self, config: ClassificationConfig, tokenizer: Tokenizer, max_seq_length: int, settled: Settled | None
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._max_seq_length = max_seq_length
        self._examples: dict[str, Examples] = {}
        self.problem = self._problem(settled)
        self.best_metric = config.best_metric or METRICS[self.problem][0]
        if self.best_metric not in METRICS[self.problem]:
            wanted = ", ".join(METRICS[self.problem])
            raise ConfigError("--best_metric", [f"found {self.best_metric}, {self.problem} has {wanted}."])
        if config.class_weights != "none" and self.problem != "single_label":
            problem = f"found {config.class_weights}, which is for single_label; this is {self.problem}. Leave it out."
            raise ConfigError("--class_weights", [problem])
        self.label_names = self._labels(settled)
        self.exported = {"problem_type": PROBLEM_TYPES[self.problem]}

    def features(self, part: str) -> Features:
        """Tokenize a part's texts."""
        examples, path = self._read(part), self._path(part)
        labels = None
        if examples.labels is not None:
            labels = encode(path, examples, self.problem, self._config.label_separator, self.label_names)
        return sequence_features(self._tokenizer, examples.first, examples.second, self._max_seq_length, labels)

    def cache_key(self, part: str) -> Mapping[str, Any]:
        """Return file, columns, labels, length and tokenizer."""
        config, path = self._config, self._path(part)
        return {
            "task": "classification",
            "version": 1,
            "file": [sha256_of(path), path.suffix.lower()],
            "columns": [config.text_column, config.text_pair_column, config.label_column],
            "labels": [self.problem, config.label_separator, *self.label_names],
            "max_seq_length": self._max_seq_length,
            "tokenizer": self._tokenizer.fingerprint,
        }

    def loss_sum(self, scores: Tensor, labels: Tensor, batch: PackedBatch) -> Tensor:
        """Return cross-entropies or squared errors, weighted by class."""
        weights = None if self._class_weights is None else torch.from_numpy(self._class_weights)
        return loss_sum(self.problem, scores, labels, weights)

    def count(self, labels: np.ndarray) -> float:
        """Return the number of sequences, or the sum of their classes' weights."""
        return len(labels) if self._class_weights is None else float(self._class_weights[labels].sum())

    def metrics(self, part: str, features: Features, scores: Sequence[np.ndarray]) -> dict[str, float]:
        """Return the metrics of the problem, `test_…` for the test file."""
        labels = features.labels
        if labels is None:
            return {}
        values = self._metrics(labels, stacked(scores))
        return {f"test_{name}": value for name, value in values.items()} if part == TEST else values

    def write_report(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Log precision, recall and F1 by class, and draw the confusion matrix."""
        if self.problem != "single_label" or features.labels is None:
            return
        matrix = metrics.confusion_matrix(features.labels, stacked(scores).argmax(axis=1), len(self.label_names))
        for name, row, column, f1 in zip(self.label_names, matrix, matrix.T, metrics.f1_by_class(matrix), strict=True):
            right = row[self.label_names.index(name)]
            precision, recall = right / max(column.sum(), 1), right / max(row.sum(), 1)
            logger.info(
                "%s  %-20s  precision %.3f  recall %.3f  f1 %.3f  (%s examples)",
                part, name[:20], precision, recall, f1, f"{row.sum():,}",
            )  # fmt: skip
        try:
            path = folder / (f"test_{PICTURE}" if part == TEST else PICTURE)
            save_confusion_matrix(path, matrix, self.label_names)
        except MissingDependencyError as error:
            logger.warning("%s", error)

    def write_predictions(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Write `predictions.jsonl`: one object an example, in the order of the file."""
        lines = self._read(part).lines
        predicted = predictions(self.problem, self.label_names, stacked(scores), self._config.threshold)
        objects = ({"line": line, **value} for line, value in zip(lines, predicted, strict=True))
        text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in objects)
        atomic_write_text(folder / PREDICTIONS, text)

    def _metrics(self, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        if self.problem == "regression":
            found, wanted = scores[:, 0], labels.astype(np.float64)
            return {
                "pearson": metrics.pearson(wanted, found),
                "spearman": metrics.spearman(wanted, found),
                "mse": float(np.square(wanted - found).mean()),
            }
        if self.problem == "multi_label":
            said, meant = probabilities(self.problem, scores) >= self._config.threshold, labels > 0
            return {"accuracy": float((said == meant).all(axis=1).mean()), "f1": metrics.micro_f1(meant, said)}
        matrix = metrics.confusion_matrix(labels, scores.argmax(axis=1), len(self.label_names))
        return {
            "accuracy": metrics.accuracy(matrix),
            "f1": metrics.macro_f1(matrix),
            "mcc": metrics.matthews_correlation(matrix),
        }

    @cached_property
    def _class_weights(self) -> np.ndarray | None:
        if self._config.class_weights == "none":
            return None
        path, examples = self._path(TRAIN), self._read(TRAIN)
        labels = encode(path, examples, self.problem, self._config.label_separator, self.label_names)
        return balanced_weights(labels, len(self.label_names))

    def _problem(self, settled: Settled | None) -> Problem:
        asked = self._config.problem
        if settled is None:
            if asked != "auto":
                return asked
            labels = self._read(TRAIN).labels
            return "multi_label" if labels and isinstance(labels[0], list) else "single_label"
        known = problem_of(settled.exported.get("problem_type"), len(settled.labels))
        if asked not in ("auto", known):
            raise ConfigError("--problem", [f"found {asked}, the model was trained for {known}. Leave it out."])
        return known

    def _labels(self, settled: Settled | None) -> tuple[str, ...]:
        if settled is not None:
            return settled.labels
        if self.problem == "regression":
            return (self._config.label_column,)
        return discover(self._path(TRAIN), self._read(TRAIN), self.problem, self._config.label_separator)

    def _path(self, part: str) -> Path:
        config = self._config
        path = {TRAIN: config.train_file, VALIDATION: config.val_file, TEST: config.test_file}[part]
        assert path is not None  # the program's configuration saw to it
        if not path.is_file():
            raise InputError(f"{path}: there is no such file. Check the spelling of the path.")
        return path

    def _read(self, part: str) -> Examples:
        if part not in self._examples:
            config = self._config
            self._examples[part] = read_examples(
                self._path(part),
                config.text_column,
                config.text_pair_column,
                config.label_column,
                needs_labels=part != TEST,
            )
        return self._examples[part]
