"""`predict answer`: where in its passage the answer to a question stands."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from bert_pytorch.inference.batches import Runner
from bert_pytorch.inference.output import json_lines
from bert_pytorch.inference.predicting import open_task_model, predictions, runner_of
from bert_pytorch.inference.questions import QuestionsConfig, read_questions
from bert_pytorch.inference.texts import Text
from bert_pytorch.interop.task_models import LoadedTaskModel
from bert_pytorch.tasks.squad.answers import Prediction, predict
from bert_pytorch.tasks.squad.config import UseConfig, settings_of
from bert_pytorch.tasks.squad.files import Question, SquadSet
from bert_pytorch.tasks.squad.windows import plan_windows, tokenized, window_features
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary


class AnswerCommandConfig(QuestionsConfig):
    """Options of `answer`; passages of any length are read in windows, as the model was trained with."""

    n_best_size: int = Field(1, ge=1)
    """Candidates written for each question; with more than 1 under "candidates"."""
    max_answer_length: int | None = Field(None, ge=1)
    """Tokens of an answer at most; by default as the model was used when it was trained."""
    version_2_with_negative: bool | None = None
    """Whether passages may hold no answer; by default as the model was trained."""
    null_score_diff_threshold: float | None = None
    """Log odds of no answer from which on none is given; by default as the model was used when it was trained."""


class Answerer:
    """A model of answers, its tokenizer, and how it is used."""

    def __init__(self, loaded: LoadedTaskModel, runner: Runner, settings: UseConfig, shown: int) -> None:
        self._model = loaded.model.to(runner.device)
        self._tokenizer = tokenizer_from_vocabulary(loaded.vocabulary)
        self._runner, self._settings, self._shown = runner, settings, shown

    def __call__(self, texts: Sequence[Text]) -> list[dict[str, Any]]:
        """Return what stands in each question's line beside the question; its passage is the pair."""
        passages = {passage: number for number, passage in enumerate(dict.fromkeys(text.pair or "" for text in texts))}
        questions = (Question("", text.text, passages[text.pair or ""], None) for text in texts)
        squad = SquadSet("questions", tuple(passages), tuple(questions))
        tokens = tokenized(squad, self._tokenizer)
        windows = plan_windows(tokens, self._settings)
        scores = self._runner.run(self._model, window_features(tokens, windows, self._tokenizer.vocabulary))
        return list(map(self._record, predict(tokens, windows, squad.passages, scores, self._settings)))

    def _record(self, prediction: Prediction) -> dict[str, Any]:
        has_none = self._settings.version_2_with_negative
        text = prediction.text(self._settings) if has_none else prediction.best
        start, end = prediction.place if text and prediction.place else (None, None)
        chances = {candidate.text: candidate.probability for candidate in prediction.candidates}
        record: dict[str, Any] = {"answer": text, "start": start, "end": end, "probability": chances.get(text, 0.0)}
        if has_none:
            record["null_odds"] = prediction.null_odds
        if self._shown > 1:
            record["candidates"] = [candidate._asdict() for candidate in prediction.candidates[: self._shown]]
        return record


def open_answerer(config: AnswerCommandConfig) -> Answerer:
    """Open the checkpoint, and take from it how it is used."""
    loaded = open_task_model(config, "question_answering")
    settings = settings_of(loaded.exported, loaded.model.config.max_position_embeddings, str(config.checkpoint))
    given = {
        "max_answer_length": config.max_answer_length,
        "version_2_with_negative": config.version_2_with_negative,
        "null_score_diff_threshold": config.null_score_diff_threshold,
        "n_best_size": max(config.n_best_size, settings.n_best_size),
    }
    settings = settings.model_copy(update={name: value for name, value in given.items() if value is not None})
    return Answerer(loaded, runner_of(config), settings, config.n_best_size)


def answer(config: AnswerCommandConfig, program: str) -> None:
    """Write a line for each question: the answer, where it stands, and its probability among the candidates."""
    with json_lines(config.output_file) as write:
        for text, record in predictions(config, open_answerer, read_questions(config)):
            name = {} if text.id is None else {"id": text.id}
            write({**name, "question": text.text, **record})
