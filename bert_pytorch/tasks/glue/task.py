"""A GLUE task, as the fine-tuning engine takes it."""
# n examples, L classes

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bert_pytorch.errors import ConfigError
from bert_pytorch.files import atomic_write_text, sha256_of
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.tasks import metrics
from bert_pytorch.tasks.features import Features, sequence_features
from bert_pytorch.tasks.glue.layouts import DIAGNOSTIC_COLUMNS, DIAGNOSTIC_FILES, DIAGNOSTICS, LAYOUTS, Part
from bert_pytorch.tasks.glue.reading import GlueExamples, encode_labels, read_diagnostics, read_part
from bert_pytorch.tasks.problems import PROBLEM_TYPES
from bert_pytorch.tasks.scoring import loss_sum, stacked
from bert_pytorch.tasks.task import TRAIN, Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

SUBMISSIONS = "submission"
"""Folder of the files that the benchmark's site takes, in the output folder."""


class GlueTask:
    """Implements `tasks.task.Task`.

    Args:
        name: among `LAYOUTS`.
        data_dir: GLUE's folder, or the task's.
        diagnostic_file: of an MNLI model; None: looked for.
        tokenizer: of the checkpoint.
        max_seq_length: tokens of a sequence at most.
        settled: labels of the model that is used further, in its order.

    Raises:
        ConfigError: if those are not the task's labels.
    """

    head: Head = "sequence_classification"

    def __init__(
        self,
        name: str,
        data_dir: Path,
        diagnostic_file: Path | None,
        tokenizer: Tokenizer,
        max_seq_length: int,
        settled: Settled | None,
    ) -> None:
        self.name = name
        self.layout = LAYOUTS[name]
        self._folder = data_dir / self.layout.folder if (data_dir / self.layout.folder).is_dir() else data_dir
        self._tokenizer = tokenizer
        self._max_seq_length = max_seq_length
        self._parts = self.layout.parts()
        self._diagnostics = self._find_diagnostics(diagnostic_file)
        self.label_names = self.layout.labels
        if settled is not None:
            self.label_names = settled.labels
            other_number = self.layout.problem == "regression" and len(settled.labels) == 1
            if set(settled.labels) != set(self.layout.labels) and not other_number:
                found, wanted = ", ".join(settled.labels), ", ".join(self.layout.labels)
                raise ConfigError(f"--task_name {name}", [f"the model's labels are {found}, the task's {wanted}."])
        self.exported = {"problem_type": PROBLEM_TYPES[self.layout.problem], "finetuning_task": name}
        self.best_metric = self.layout.metrics[0]
        self.eval_parts = tuple(self.layout.eval_parts)
        self.predict_parts = (*self.layout.predict_parts, *([DIAGNOSTICS] if self._diagnostics else []))

    def features(self, part: str) -> Features:
        """Tokenize a part's texts."""
        examples = self._read(part)
        labels = encode_labels(self._path(part), examples, self.layout, self.label_names)
        return sequence_features(self._tokenizer, examples.first, examples.second, self._max_seq_length, labels)

    def cache_key(self, part: str) -> Mapping[str, Any]:
        """Return task, file, labels, length and tokenizer."""
        return {
            "task": f"glue {self.name}",
            "version": 1,
            "file": sha256_of(self._path(part)) if self._path(part).is_file() else None,
            "labels": list(self.label_names),
            "max_seq_length": self._max_seq_length,
            "tokenizer": self._tokenizer.fingerprint,
        }

    def loss_sum(self, scores: Tensor, labels: Tensor, batch: PackedBatch) -> Tensor:
        """Return cross-entropies, or squared errors for STS-B."""
        return loss_sum(self.layout.problem, scores, labels)

    def count(self, labels: np.ndarray) -> float:
        """Return the number of sequences."""
        return len(labels)

    def metrics(self, part: str, features: Features, scores: Sequence[np.ndarray]) -> dict[str, float]:
        """Return the official metrics, `…_mm` for MNLI's mismatched part, `test_…` and `diagnostics_mcc`."""
        labels = features.labels
        if labels is None:
            return {}
        values = stacked(scores)
        if part == DIAGNOSTICS:
            return {f"{DIAGNOSTICS}_mcc": self._all_metrics(labels, values)["mcc"]}
        prefix = "test_" if part in self.layout.predict_parts else ""
        found = self._all_metrics(labels, values)
        return {f"{prefix}{name}{self._part(part).suffix}": found[name] for name in self.layout.metrics}

    def write_report(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """GLUE's metrics say all."""

    def write_predictions(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Write a submission: `index`, from 0, and `prediction`, a class's name or STS-B's number within 0 to 5."""
        values = stacked(scores)
        if self.layout.problem == "regression":
            predictions = [f"{value:.4f}" for value in values[:, 0].clip(0, 5)]
        else:
            predictions = [self.label_names[number] for number in values.argmax(axis=1)]
        lines = ["index\tprediction", *(f"{index}\t{value}" for index, value in enumerate(predictions))]
        atomic_write_text(folder / SUBMISSIONS / self._part(part).submission, "\n".join(lines) + "\n")

    def _all_metrics(self, labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
        if self.layout.problem == "regression":
            wanted, found = labels.astype(np.float64), scores[:, 0]
            return {"pearson": metrics.pearson(wanted, found), "spearman": metrics.spearman(wanted, found)}
        matrix = metrics.confusion_matrix(labels, scores.argmax(axis=1), len(self.label_names))
        positive = self.label_names.index(self.layout.labels[1])
        return {
            "accuracy": metrics.accuracy(matrix),
            "f1": float(metrics.f1_by_class(matrix)[positive]),
            "mcc": metrics.matthews_correlation(matrix),
        }

    def _part(self, part: str) -> Part:
        return Part("", "AX.tsv") if part == DIAGNOSTICS else self._parts[part]

    def _path(self, part: str) -> Path:
        if part == DIAGNOSTICS:
            assert self._diagnostics is not None
            return self._diagnostics
        return self._folder / self._part(part).file

    def _read(self, part: str) -> GlueExamples:
        if part == DIAGNOSTICS:
            return read_diagnostics(self._path(part), DIAGNOSTIC_COLUMNS)
        labelled = part == TRAIN or part in self.layout.eval_parts
        return read_part(self._path(part), self.layout, labelled=labelled)

    def _find_diagnostics(self, given: Path | None) -> Path | None:
        if self.name != "mnli" or given is not None:
            return given if self.name == "mnli" else None
        places = (folder / file for folder in (self._folder, self._folder.parent) for file in DIAGNOSTIC_FILES)
        return next((place for place in places if place.is_file()), None)
