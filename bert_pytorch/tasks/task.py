"""What a task tells the fine-tuning engine; the engine knows nothing else of it."""
# n sequences (windows of examples), T tokens together, B sequences of a batch

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.tasks.features import Features

TRAIN = "train"
"""The part that is learnt from."""


class Settled(NamedTuple):
    """What a model that was trained for a task before says of it: its labels are not discovered anew."""

    labels: tuple[str, ...]
    """Name of each class."""
    exported: Mapping[str, Any]
    """What `Task.exported` was, among other keys."""


class Task(Protocol):
    """A task with its files, its labels and the tokenizer of the checkpoint.

    A part is a file of the task's, or what it names so: `train`, and what stands in `eval_parts` and `predict_parts`.
    """

    @property
    def head(self) -> Head:
        """What is scored: sequences, tokens, or answers in a passage."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class, exported with the model; a single one for a number; () for answers in a passage."""

    @property
    def exported(self) -> Mapping[str, Any]:
        """Further keys of the exported `config.json`: what prediction must know (`problem_type`); plain values."""

    @property
    def best_metric(self) -> str:
        """Which metric of the first of `eval_parts` decides which checkpoint is best; higher is better."""

    @property
    def eval_parts(self) -> tuple[str, ...]:
        """Parts with labels that `--do_eval` evaluates; the first also while training."""

    @property
    def predict_parts(self) -> tuple[str, ...]:
        """Parts that `--do_predict` predicts, with or without labels; may be among `eval_parts`."""

    def features(self, part: str) -> Features:
        """Read a part's file and make its sequences.

        Raises:
            InputError: one message naming the file, and the line or record, that cannot be used.
        """

    def cache_key(self, part: str) -> Mapping[str, Any]:
        """Return all that shapes `features`, as plain values.

        Digests of files and tokenizer, lengths, strides, labels, and a number that is raised when the code changes.
        """

    def loss_sum(self, scores: Tensor, labels: Tensor, batch: PackedBatch) -> Tensor:
        """Return the loss as a sum, (); the engine divides by `count` over all ranks and micro-batches.

        Args:
            scores: of the head: (B, labels), (T, labels) or (T, 2), in at least float32.
            labels: `Features.labels` of these sequences: first dimension B, or T where tokens are labelled.
            batch: whose `cu_seqlens` and `lengths` say which tokens belong together; B may be 0.
        """

    def count(self, labels: np.ndarray) -> float:
        """Return what the loss of sequences with these labels is divided by."""

    def metrics(self, part: str, features: Features, scores: Sequence[np.ndarray]) -> dict[str, float]:
        """Return metrics of a part under their names in `eval_results.json` (`test_…` for a test file).

        Args:
            part: among `eval_parts` or `predict_parts`.
            features: of the part.
            scores: float32, one array a sequence, in order: (labels,), (tokens, labels) or (tokens, 2).

        Returns:
            Nothing for a part without labels.
        """

    def write_report(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Log, or write into the output folder, what tells more than the metrics: a table by class, a picture.

        Called once for each part with labels, at the end; arguments as for `metrics`.
        """

    def write_predictions(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Write what was predicted for one of `predict_parts` into the output folder; arguments as for `metrics`."""
