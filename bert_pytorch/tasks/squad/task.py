"""SQuAD as the fine-tuning engine takes it."""
# n windows, T tokens together, B windows of a batch

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.files import sha256_of
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import cross_entropy_sum
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.runtime.device import to_device
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.squad.answers import Prediction, predict, write_predictions
from bert_pytorch.tasks.squad.config import SquadConfig, exported_settings
from bert_pytorch.tasks.squad.files import SquadSet, check_ids, read_squad
from bert_pytorch.tasks.squad.metrics import evaluate, evaluate_version_2
from bert_pytorch.tasks.squad.spans import TrainingSet, check_answered, targets_of, training_set, window_labels
from bert_pytorch.tasks.squad.windows import (
    TokenizedQuestions,
    WindowConfig,
    Windows,
    plan_windows,
    tokenized,
    window_features,
)
from bert_pytorch.tasks.task import TRAIN
from bert_pytorch.tokenization.tokenizer import Tokenizer

PREDICT = "predict"


class SquadTask:
    """Implements `tasks.task.Task`.  Files are read at once, so that a bad one is told before anything else is done.

    Args:
        config: files, windows and answers.
        tokenizer: of the checkpoint.
        trains: whether `train_file` is needed.
        evaluates: whether `predict_file` must have answers.
        predicts: whether `predict_file` is needed in any case.
    """

    head: Head = "question_answering"
    label_names = ()
    best_metric = "f1"
    eval_parts = (PREDICT,)
    predict_parts = (PREDICT,)

    def __init__(
        self, config: SquadConfig, tokenizer: Tokenizer, *, trains: bool, evaluates: bool, predicts: bool
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._training: TrainingSet | None = None
        self._asked: SquadSet | None = None
        if trains:
            files = read_squad(config.train_file)
            self._training = training_set(files, config.version_2_with_negative, config.verbose_logging)
        if evaluates or predicts:
            self._asked = read_squad(config.predict_file)
            check_ids(self._asked)
        if evaluates and self._asked is not None:
            check_answered(self._asked, config.version_2_with_negative)

    @property
    def exported(self) -> Mapping[str, Any]:
        """How windows and answers were made."""
        return exported_settings(self._config)

    def features(self, part: str) -> Features:
        """Tokenize a part's questions and cut its passages into windows."""
        if part == PREDICT:
            return window_features(self._tokens, self._windows, self._tokenizer.vocabulary)
        assert self._training is not None
        tokens = tokenized(self._training.squad, self._tokenizer)
        windows = plan_windows(tokens, self._config)
        labels = window_labels(targets_of(self._training.places, tokens), windows)
        return window_features(tokens, windows, self._tokenizer.vocabulary, labels)

    def cache_key(self, part: str) -> Mapping[str, Any]:
        """Return files, window and tokenizer."""
        config = self._config
        return {
            "task": "squad",
            "version": 1,
            "files": [sha256_of(path) for path in (config.train_file if part == TRAIN else config.predict_file)],
            "windows": {name: getattr(config, name) for name in WindowConfig.model_fields},
            "version_2": config.version_2_with_negative,
            "tokenizer": self._tokenizer.fingerprint,
        }

    def loss_sum(self, scores: Tensor, labels: Tensor, batch: PackedBatch) -> Tensor:
        """Return half the cross-entropy of starts plus half that of ends, over the tokens of each window.

        In Google's, NVIDIA's and transformers' losses padding competes as well; here there is none.

        Args:
            scores: (T, 2).
            labels: int64 (B, 2), places within each window.
            batch: B windows.
        """
        by_window = _in_rows(scores, batch.lengths)  # (B, longest, 2)
        starts, ends = (cross_entropy_sum(by_window[..., end], labels[:, end]) for end in (0, 1))
        return (starts + ends) / 2

    def count(self, labels: np.ndarray) -> float:
        """Return the number of windows."""
        return len(labels)

    def metrics(self, part: str, features: Features, scores: Sequence[np.ndarray]) -> dict[str, float]:
        """Return exact match and F1 in percent, with version 2 of both kinds of question and at the best threshold."""
        config, asked = self._config, self._asked
        assert asked is not None
        if any(question.answers is None for question in asked.questions):
            return {}
        answers = [[answer.text for answer in question.answers or ()] for question in asked.questions]
        if not (config.version_2_with_negative or all(answers)):
            return {}
        predictions = self._predict(scores)
        texts = [prediction.text(config) for prediction in predictions]
        if not config.version_2_with_negative:
            return evaluate(texts, answers)
        null_odds = np.array([prediction.null_odds for prediction in predictions])
        return evaluate_version_2(texts, answers, [prediction.best for prediction in predictions], null_odds)

    def write_report(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """There is nothing to tell beyond the metrics."""

    def write_predictions(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Write the official files."""
        assert self._asked is not None
        ids = [question.id for question in self._asked.questions]
        write_predictions(folder, ids, self._predict(scores), self._config)

    def _predict(self, scores: Sequence[np.ndarray]) -> list[Prediction]:
        assert self._asked is not None
        return predict(self._tokens, self._windows, self._asked.passages, scores, self._config)

    @cached_property
    def _tokens(self) -> TokenizedQuestions:
        assert self._asked is not None
        return tokenized(self._asked, self._tokenizer)

    @cached_property
    def _windows(self) -> Windows:
        return plan_windows(self._tokens, self._config)


def _in_rows(scores: Tensor, lengths: Sequence[int]) -> Tensor:
    """Spread packed scores (T, 2) to (B, longest, 2), minus infinity where no token is."""
    longest = max(lengths, default=1)
    real = np.arange(longest) < np.array(lengths, np.int64)[:, None]
    places = to_device(torch.from_numpy(np.flatnonzero(real)), scores.device)
    rows = scores.new_full((len(lengths) * longest, 2), -torch.inf)
    return rows.index_copy(0, places, scores).view(len(lengths), longest, 2)
