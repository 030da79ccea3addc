"""From scores of tokens to answers: the best spans of all windows of a question, as Google's run_squad chooses them.

Unlike there, the text of an answer is cut out of its passage by character offsets, so that no alignment can fail.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.files import atomic_write_text
from bert_pytorch.tasks.squad.windows import TokenizedQuestions, Windows, is_max_context
from bert_pytorch.tokenization.placed import PlacedTokens

PREDICTIONS, N_BEST, NULL_ODDS = "predictions.json", "nbest_predictions.json", "null_odds.json"
WRITES = PREDICTIONS, N_BEST, NULL_ODDS
NOTHING = "empty"
"""What the official files say where version 1.1 finds no span at all."""


class AnswerConfig(Settings):
    """How answers are chosen."""

    n_best_size: int = Field(20, ge=1)
    """Starts and ends considered in each window, and candidates written for each question."""
    max_answer_length: int = Field(30, ge=1)
    """Tokens of an answer at most."""
    version_2_with_negative: bool = False
    """Whether passages may hold no answer, as in SQuAD 2.0."""
    null_score_diff_threshold: float = 0.0
    """With --version_2_with_negative: a question is left without an answer where the score of none exceeds that of the
    best answer by more than this (log odds)."""


class Candidate(NamedTuple):
    """One possible answer; as in `nbest_predictions.json`."""

    text: str
    """Empty: the passage holds none."""
    probability: float
    """Among the candidates."""
    start_logit: float
    end_logit: float


class Prediction(NamedTuple):
    """What is found for one question."""

    best: str
    """The best text; empty if there is no span at all."""
    place: tuple[int, int] | None
    """Its first character in the passage, and one past its last."""
    candidates: tuple[Candidate, ...]
    """Best first, at least one; with version 2 always one without text among them."""
    null_odds: float
    """How much the score of no answer exceeds that of the best text, in log odds; 0 in version 1.1."""

    def text(self, config: AnswerConfig) -> str:
        """Return the answer, empty where `config` lets none win."""
        if not config.version_2_with_negative:
            return self.best or NOTHING
        return "" if self.null_odds > config.null_score_diff_threshold else self.best


def predict(
    tokens: TokenizedQuestions,
    windows: Windows,
    passages: Sequence[str],
    scores: Sequence[np.ndarray],
    config: AnswerConfig,
) -> list[Prediction]:
    """Choose answers for q questions.

    Args:
        tokens: the questions.
        windows: n windows of them.
        passages: texts that `tokens.passages` are the tokens of.
        scores: of each window, in order, float (size, 2): logits of start and end for each of its tokens.
        config: how to choose.
    """
    chosen = _in_windows(windows, scores, config)
    return [
        _prediction(spans, _places(spans, tokens.passages, passage), passages[passage], config)
        for spans, passage in zip(chosen, tokens.passage_of.tolist(), strict=True)
    ]


def write_predictions(
    folder: Path, ids: Sequence[str], predictions: Sequence[Prediction], config: AnswerConfig
) -> None:
    """Write the official files: `predictions.json`, `nbest_predictions.json` and, of version 2, `null_odds.json`."""
    pairs = list(zip(ids, predictions, strict=True))
    _write(folder / PREDICTIONS, {name: prediction.text(config) for name, prediction in pairs})
    _write(
        folder / N_BEST,
        {name: [candidate._asdict() for candidate in prediction.candidates] for name, prediction in pairs},
    )
    if config.version_2_with_negative:
        _write(folder / NULL_ODDS, {name: prediction.null_odds for name, prediction in pairs})


class _Spans(NamedTuple):
    """k possible answers to one question, in the order of windows, and in each by start, then by end."""

    tokens: np.ndarray
    """int64 (k, 2), first and last token within the passage."""
    logits: np.ndarray
    """float64 (k, 2), of start and end."""
    null: np.ndarray
    """float64 (2,), logits of `[CLS]` in the window where their sum is least."""


def _in_windows(windows: Windows, scores: Sequence[np.ndarray], config: AnswerConfig) -> Iterator[_Spans]:
    """Yield the spans of each question."""
    may_start = np.split(is_max_context(windows), np.cumsum(windows.lengths)[:-1])
    places, starts = windows.passage_places.tolist(), windows.starts.tolist()
    found: list[np.ndarray] = []
    logits: list[np.ndarray] = []
    nulls: list[np.ndarray] = []
    for index, (question, next_one) in enumerate(itertools.pairwise([*windows.questions.tolist(), None])):
        given = np.asarray(scores[index], np.float64)
        spans = _best_spans(given, places[index], may_start[index], config)
        logits.append(np.stack([given[spans[:, 0], 0], given[spans[:, 1], 1]], axis=1))
        found.append(spans - places[index] + starts[index])
        nulls.append(given[0])
        if next_one != question:
            null = min(nulls, key=np.sum)
            yield _Spans(np.concatenate(found), np.concatenate(logits), null)
            found, logits, nulls = [], [], []


def _best_spans(scores: np.ndarray, place: int, may_start: np.ndarray, config: AnswerConfig) -> np.ndarray:
    """Pair the best starts with the best ends of one window, as far as they make an answer: int64 (k, 2)."""
    count = config.n_best_size
    starts = np.argsort(-scores[:, 0], kind="stable")[:count, None]
    ends = np.argsort(-scores[:, 1], kind="stable")[:count]
    allowed = np.zeros(len(scores), bool)
    allowed[place : place + len(may_start)] = may_start
    is_answer = allowed[starts] & (starts <= ends) & (ends < starts + config.max_answer_length)
    is_answer &= ends < place + len(may_start)  # not the last [SEP]
    rows, columns = np.nonzero(is_answer)
    return np.stack([starts[rows, 0], ends[columns]], axis=1)


def _places(spans: _Spans, passages: PlacedTokens, passage: int) -> list[tuple[int, int]]:
    """Return the first character of each span, and one past its last."""
    first = passages.offsets[passage]
    starts = passages.starts[first + spans.tokens[:, 0]].tolist()
    ends = passages.ends[first + spans.tokens[:, 1]].tolist()
    return list(zip(starts, ends, strict=True))


def _prediction(spans: _Spans, places: list[tuple[int, int]], passage: str, config: AnswerConfig) -> Prediction:
    """Rank the spans of one question and, in version 2, none."""
    texts = [passage[start:end] for start, end in places]
    logits = np.concatenate([spans.logits, spans.null[None]])
    totals, null = logits.sum(axis=1), len(texts)
    order = [index for index in np.argsort(-totals, kind="stable").tolist() if index == null or texts[index]]
    best = next((index for index in order if index != null), None)  # byte-level BPE has spans of spaces alone
    ranked = _each_text_once([*texts, ""], order, config)
    if not ranked:
        return Prediction("", None, (Candidate(NOTHING, 1.0, 0.0, 0.0),), 0.0)
    chosen = list(ranked.values())
    weights = np.exp(totals[chosen] - totals[chosen].max())
    candidates = tuple(
        Candidate(text, weight, *pair)
        for text, weight, pair in zip(ranked, (weights / weights.sum()).tolist(), logits[chosen].tolist(), strict=True)
    )
    rival = 0.0 if best is None else totals[best]  # Google's stand-in, where there is no span
    null_odds = float(totals[null] - rival) if config.version_2_with_negative else 0.0
    if best is None:
        return Prediction("", None, candidates, null_odds)
    return Prediction(texts[best], places[best], candidates, null_odds)


def _each_text_once(texts: list[str], order: list[int], config: AnswerConfig) -> dict[str, int]:
    """Return the first `n_best_size` different texts by rank and where they stand in `texts`, whose last is none.

    In version 2 none is among them, behind the others where it is not as good; in version 1.1 never.
    """
    null = len(texts) - 1
    ranked: dict[str, int] = {}
    for index in order:
        if index == null and not config.version_2_with_negative:
            continue
        ranked.setdefault(texts[index], index)
        if len(ranked) == config.n_best_size:
            break
    if config.version_2_with_negative:
        ranked.setdefault("", null)
    return ranked


def _write(path: Path, content: dict[str, object]) -> None:
    atomic_write_text(path, json.dumps(content, indent=4, ensure_ascii=False) + "\n")
