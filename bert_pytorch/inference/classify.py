"""`predict classify`: the class of each text or pair, its classes where several may hold, or a number."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from bert_pytorch.inference.batches import Runner
from bert_pytorch.inference.output import json_lines
from bert_pytorch.inference.predicting import (
    PredictConfig,
    fitting_features,
    open_task_model,
    predictions,
    runner_of,
)
from bert_pytorch.inference.texts import Text, read_texts
from bert_pytorch.interop.task_models import LoadedTaskModel
from bert_pytorch.tasks import scoring
from bert_pytorch.tasks.problems import problem_of
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary


class ClassifyConfig(PredictConfig):
    """Options of `classify`."""

    pairs: bool = False
    """Each text is two texts: apart by a tab, or "text" and "text_pair" of a .jsonl file."""
    truncate: bool = False
    """Cut texts that are longer than the model's positions, instead of refusing them."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability from which on a class holds, where several may."""


class Classifier:
    """A sequence classifier and its tokenizer."""

    def __init__(self, loaded: LoadedTaskModel, runner: Runner, config: ClassifyConfig) -> None:
        self._model = loaded.model.to(runner.device)
        self._labels = loaded.labels
        self._problem = problem_of(loaded.exported.get("problem_type"), len(loaded.labels))
        self._tokenizer = tokenizer_from_vocabulary(loaded.vocabulary)
        self._runner, self._config = runner, config

    def __call__(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """Return what stands in each text's line beside the text."""
        limit = self._model.config.max_position_embeddings
        features = fitting_features(texts, self._tokenizer, limit, truncate=self._config.truncate)
        scores = scoring.stacked(self._runner.run(self._model, features))
        return list(scoring.predictions(self._problem, self._labels, scores, self._config.threshold))


def open_classifier(config: ClassifyConfig) -> Classifier:
    """Open the checkpoint."""
    return Classifier(open_task_model(config, "sequence_classification"), runner_of(config), config)


def classify(config: ClassifyConfig, program: str) -> None:
    """Write a line for each text: its class and the probability of each, or a number."""
    with json_lines(config.output_file) as write:
        for text, result in predictions(config, open_classifier, read_texts(config, pairs=config.pairs)):
            pair = {} if text.pair is None else {"text_pair": text.pair}
            write({"text": text.text, **pair, **result})
