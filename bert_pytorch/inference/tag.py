"""`predict tag`: the class of each word, and the entities that the classes mean."""
# N words of a text, L labels

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from bert_pytorch.inference.batches import Runner
from bert_pytorch.inference.output import json_lines
from bert_pytorch.inference.predicting import PredictConfig, open_task_model, predictions, runner_of
from bert_pytorch.inference.texts import Text, read_texts
from bert_pytorch.inference.words import Word, words_apart_by_spaces, words_of
from bert_pytorch.interop.task_models import LoadedTaskModel
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.ner.schemes import OUTSIDE, Entity, entities_of, split_tag
from bert_pytorch.tasks.ner.windows import window_sentences
from bert_pytorch.tasks.scoring import probabilities
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary


class TagConfig(PredictConfig):
    """Options of `tag`."""

    words: Literal["marks", "spaces"] = "marks"
    """What is a word: marks takes punctuation at its ends off, as the words of CoNLL files are; spaces takes what
    stands between spaces, for text that is split already."""


class Tagged(NamedTuple):
    """A text's words and their tags."""

    words: list[Word]
    tags: list[str]
    """N; `O` where the tokenizer makes nothing of a word."""
    probabilities: list[float]
    """N, of the tags; 1 where there is no token."""


class Tagger:
    """A token classifier and its tokenizer.  Texts longer than the model become windows: nothing is cut."""

    def __init__(self, loaded: LoadedTaskModel, runner: Runner, words: Literal["marks", "spaces"]) -> None:
        self._model = loaded.model.to(runner.device)
        self._labels = loaded.labels
        self._nothing = OUTSIDE if OUTSIDE in loaded.labels else ""
        self._tokenizer = tokenizer_from_vocabulary(loaded.vocabulary)
        self._runner = runner
        self._split = words_of if words == "marks" else words_apart_by_spaces

    def __call__(self, texts: Sequence[Text]) -> list[Tagged]:
        """Tag the words of texts."""
        words = [self._split(text.text) for text in texts]
        starts = np.cumsum([0, *map(len, words)]).tolist()
        flat = [word.word for found in words for word in found]
        features = window_sentences(flat, starts, self._tokenizer, self._model.config.max_position_embeddings)
        tags, chances = self._tags(features, len(flat))
        cuts = zip(words, starts[:-1], starts[1:], strict=True)
        return [Tagged(found, tags[start:stop], chances[start:stop]) for found, start, stop in cuts]

    def _tags(self, features: Features, num_words: int) -> tuple[list[str], list[float]]:
        tags, chances = [self._nothing] * num_words, [1.0] * num_words
        scores = self._runner.run(self._model, features)
        if not scores:
            return tags, chances
        words = features.extra["words"]
        asked = words >= 0
        likely = probabilities("single_label", np.concatenate(scores)[asked])
        best = likely.argmax(axis=1)
        chosen = likely[np.arange(len(best)), best]
        for word, label, probability in zip(words[asked].tolist(), best.tolist(), chosen.tolist(), strict=True):
            tags[word], chances[word] = self._labels[label], probability
        return tags, chances


def open_tagger(config: TagConfig) -> Tagger:
    """Open the checkpoint."""
    return Tagger(open_task_model(config, "token_classification"), runner_of(config), config.words)


def tag(config: TagConfig, program: str) -> None:
    """Write a line for each text: its words, their tags, and the entities with their places."""
    with json_lines(config.output_file) as write:
        for text, tagged in predictions(config, open_tagger, read_texts(config)):
            write(_record(text.text, tagged))


def _record(text: str, tagged: Tagged) -> dict[str, Any]:
    record = {"text": text, "words": [word.word for word in tagged.words], "tags": tagged.tags}
    if any(split_tag(tag) is None for tag in tagged.tags):
        return record  # classes that name no entities, such as parts of speech
    entities = [_entity(text, tagged, entity) for entity in entities_of(tagged.tags)]
    return {**record, "entities": entities}


def _entity(text: str, tagged: Tagged, entity: Entity) -> dict[str, Any]:
    words = slice(entity.start, entity.stop)
    start, end = tagged.words[entity.start].start, tagged.words[entity.stop - 1].stop
    probability = sum(tagged.probabilities[words]) / (entity.stop - entity.start)
    return {
        "type": entity.kind,
        "text": text[start:end],
        "start": start,
        "end": end,
        "probability": round(probability, 4),
    }
