"""Tagging entities as a task of the fine-tuning engine."""
# T tokens, N words of a file, L labels

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.files import atomic_write_text
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.records import IGNORED_LABEL
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.ner.conll import ConllFile, cut, read_conll, write_predictions
from bert_pytorch.tasks.ner.labels import checked_labels, found_types, label_ids, labels_of_types, types_of_labels
from bert_pytorch.tasks.ner.metrics import EntityScores, score_entities
from bert_pytorch.tasks.ner.schemes import OUTSIDE, Entity, entities_of
from bert_pytorch.tasks.ner.windows import window_sentences
from bert_pytorch.tasks.task import TRAIN, Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

VALIDATION, TEST = "val", "test"
WRITES = tuple(f"{part}_{name}" for part in (VALIDATION, TEST) for name in ("entities.txt", "predictions.conll"))

FEATURES_VERSION = 1
"""Raised when `features` changes."""


class NerTask:
    """CoNLL files by part, and the labels.

    Args:
        paths: of `train`, `val` and `test`, as far as there are any.
        tokenizer: of the checkpoint.
        max_seq_length: tokens of a sequence at most; longer sentences become windows.
        wanted: what `--labels` names; without any, the types in the training file are learnt.
        settled: labels of the model that is used further; None: there is none yet.
    """

    head: Head = "token_classification"
    best_metric = "f1"
    exported: Mapping[str, Any] = {}

    def __init__(
        self,
        paths: Mapping[str, Path],
        tokenizer: Tokenizer,
        max_seq_length: int,
        wanted: Sequence[str] = (),
        settled: Settled | None = None,
    ) -> None:
        self._files = {part: read_conll(path) for part, path in paths.items()}
        self._tokenizer = tokenizer
        self._max_seq_length = max_seq_length
        if settled is not None:
            self.label_names = checked_labels(settled.labels, wanted)
        else:
            self.label_names = labels_of_types(types_of_labels(wanted) if wanted else found_types(self._files[TRAIN]))
        self._label_ids = {part: label_ids(file, self.label_names) for part, file in self._files.items()}

    @property
    def eval_parts(self) -> tuple[str, ...]:
        """The validation file, where there is one."""
        return tuple(part for part in (VALIDATION,) if part in self._files)

    @property
    def predict_parts(self) -> tuple[str, ...]:
        """The test file, where there is one."""
        return tuple(part for part in (TEST,) if part in self._files)

    def features(self, part: str) -> Features:
        """Make the sequences of a file, labels at the first tokens of words."""
        file = self._files[part]
        features = window_sentences(file.words, file.starts, self._tokenizer, self._max_seq_length)
        words = features.extra["words"]
        return features._replace(labels=np.where(words >= 0, self._label_ids[part][words], IGNORED_LABEL))

    def cache_key(self, part: str) -> Mapping[str, Any]:
        """Return what shapes the features of a part."""
        file = self._files[part]
        return {
            "task": "ner",
            "version": FEATURES_VERSION,
            "file": hashlib.sha256("\n".join(file.lines).encode()).hexdigest(),
            "labels": list(self.label_names),
            "max_seq_length": self._max_seq_length,
            "tokenizer": self._tokenizer.fingerprint,
        }

    def loss_sum(self, scores: Tensor, labels: Tensor, batch: PackedBatch) -> Tensor:
        """Return the cross-entropy summed over words."""
        return F.cross_entropy(scores, labels, ignore_index=IGNORED_LABEL, reduction="sum")

    def count(self, labels: np.ndarray) -> float:
        """Return the number of words."""
        return float(np.count_nonzero(labels != IGNORED_LABEL))

    def metrics(self, part: str, features: Features, scores: Sequence[np.ndarray]) -> dict[str, float]:
        """Return precision, recall and F1 by entity, of all types and of each."""
        prefix = "" if part == VALIDATION else f"{part}_"
        return {f"{prefix}{name}": value for name, value in self._scored(part, features, scores).metrics().items()}

    def write_report(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Log the table of types, and write it as `{part}_entities.txt`."""
        table = self._scored(part, features, scores).table()
        logger.info("%s\n%s", self._files[part].path, table)
        atomic_write_text(folder / f"{part}_entities.txt", f"{table}\n")

    def write_predictions(self, part: str, features: Features, scores: Sequence[np.ndarray], folder: Path) -> None:
        """Write `{part}_predictions.conll`: the file with a column of predicted tags more."""
        file = self._files[part]
        predicted = self._predicted(file, features, scores)
        write_predictions(folder / f"{part}_predictions.conll", file, predicted)

    def _scored(self, part: str, features: Features, scores: Sequence[np.ndarray]) -> EntityScores:
        file = self._files[part]
        return score_entities(file.entities(), self._predicted(file, features, scores))

    def _predicted(self, file: ConllFile, features: Features, scores: Sequence[np.ndarray]) -> list[list[Entity]]:
        """Return the entities of each sentence; words without a token are outside of any."""
        tags = [OUTSIDE] * len(file.words)
        words = features.extra["words"]
        best = np.concatenate([sequence.argmax(axis=1) for sequence in scores]) if scores else np.empty(0, np.int64)
        asked = words >= 0
        for word, label in zip(words[asked].tolist(), best[asked].tolist(), strict=True):
            tags[word] = self.label_names[label]
        return [entities_of(sentence) for sentence in cut(tags, file.starts)]
