"""`predict classify`: the class of each text or pair, its classes where several may hold, or a number."""
# L labels

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from bert_pytorch.errors import ConfigError
from bert_pytorch.inference.batches import Runner
from bert_pytorch.inference.output import json_lines
from bert_pytorch.inference.predicting import (
    PredictConfig,
    fitting_features,
    open_task_model,
    predictions,
    runner_of,
    softmax,
)
from bert_pytorch.inference.texts import Text
from bert_pytorch.interop.task_models import LoadedTaskModel
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary

Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
THRESHOLD = 0.5
"""From which probability on a class holds, where several may."""


class ClassifyConfig(PredictConfig):
    """Options of `classify`."""

    pairs: bool = False
    """Each text is two texts: apart by a tab, or "text" and "text_pair" of a .jsonl file."""
    truncate: bool = False
    """Cut texts that are longer than the model's positions, instead of refusing them."""


class Classifier:
    """A sequence classifier and its tokenizer."""

    def __init__(self, loaded: LoadedTaskModel, runner: Runner, truncate: bool) -> None:
        self._model = loaded.model.to(runner.device)
        self._labels = loaded.labels
        self._problem = problem_of(loaded)
        self._tokenizer = tokenizer_from_vocabulary(loaded.vocabulary)
        self._runner, self._truncate = runner, truncate

    def __call__(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """Return what stands in each text's line beside the text."""
        limit = self._model.config.max_position_embeddings
        features = fitting_features(texts, self._tokenizer, limit, truncate=self._truncate)
        return [self._record(scores) for scores in self._runner.run(self._model, features)]

    def _record(self, scores: np.ndarray) -> dict[str, Any]:
        """Say what the scores of one text, (L,), mean."""
        if self._problem == "regression":
            return {"value": float(scores[0])}
        if self._problem == "multi_label_classification":
            likely = 1 / (1 + np.exp(-scores.astype(np.float64)))
            held = [label for label, value in zip(self._labels, likely, strict=True) if value > THRESHOLD]
            chosen: dict[str, Any] = {"labels": held}
        else:
            likely = softmax(scores)
            chosen = {"label": self._labels[int(likely.argmax())]}
        probabilities = zip(self._labels, likely.tolist(), strict=True)
        return {**chosen, "probabilities": {label: round(value, 6) for label, value in probabilities}}


def problem_of(loaded: LoadedTaskModel) -> Problem:
    """Return what `config.json` says is predicted; without a word, one label is a number and several are classes.

    Raises:
        ConfigError: if it says anything else.
    """
    found = loaded.exported.get("problem_type")
    match found:
        case "single_label_classification" | "multi_label_classification" | "regression":
            return found
        case None:
            return "regression" if len(loaded.labels) == 1 else "single_label_classification"
    raise ConfigError("config.json", [f'"problem_type": found {found!r}, wanted one of {", ".join(_PROBLEMS)}.'])


_PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


def open_classifier(config: ClassifyConfig) -> Classifier:
    """Open the checkpoint."""
    return Classifier(open_task_model(config, "sequence_classification"), runner_of(config), config.truncate)


def classify(config: ClassifyConfig, program: str) -> None:
    """Write a line for each text: its class and the probability of each, or a number."""
    with json_lines(config.output_file) as write:
        for text, result in predictions(config, open_classifier, pairs=config.pairs):
            pair = {} if text.pair is None else {"text_pair": text.pair}
            write({"text": text.text, **pair, **result})
