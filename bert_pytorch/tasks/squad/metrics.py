"""Exact match and F1 by the definition of SQuAD's official scripts (Rajpurkar et al. 2016, 2018), in percent."""

import collections
import re
import string
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower the case; take out ASCII punctuation, then articles; join what is left by single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """Return 1 where both texts are the same once normalized, else 0."""
    return float(normalized(prediction) == normalized(answer))


def f1(prediction: str, answer: str, version_2: bool = False) -> float:
    """Return the harmonic mean of precision and recall over words, counted with their repetitions.

    Args:
        prediction: as predicted.
        answer: as annotated.
        version_2: whether two texts without any word match, as no answer does with no answer; in version 1.1 their
            score is 0.
    """
    predicted, wanted = normalized(prediction).split(), normalized(answer).split()
    if version_2 and not (predicted and wanted):
        return float(predicted == wanted)
    common = (collections.Counter(predicted) & collections.Counter(wanted)).total()
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def evaluate(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Score by version 1.1: for each of n questions the best match with any of its answers.

    Args:
        predictions: n texts.
        answers: of each question, of all annotators; at least one.

    Returns:
        `exact_match` and `f1`.
    """
    exact, overlap = _scores(predictions, answers, version_2=False)
    return {"exact_match": _percent(exact), "f1": _percent(overlap)}


def evaluate_version_2(
    predictions: Sequence[str],
    answers: Sequence[Sequence[str]],
    best_texts: Sequence[str] | None = None,
    null_odds: np.ndarray | None = None,
) -> dict[str, float]:
    """Score by version 2.0, in which no answer may be right, and find the best thresholds.

    Args:
        predictions: n texts, empty for no answer.
        answers: of each question; none where the passage holds none.
        best_texts: n texts, what is answered where something is.
        null_odds: float (n,), log odds of no answer against those; without both no threshold is looked for.

    Returns:
        `exact_match`, `f1` and `total`; the same of the questions with (`HasAns_…`) and without (`NoAns_…`) answers
        where there are such; `best_exact`, `best_f1` and the thresholds at which they would be (`…_thresh`).
    """
    answers = [[text for text in texts if normalized(text)] or [""] for texts in answers]
    has_answer = np.array([texts != [""] for texts in answers], bool)
    exact, overlap = _scores(predictions, answers, version_2=True)
    found: dict[str, float] = {}
    for prefix, chosen in (("", np.ones_like(has_answer)), ("HasAns_", has_answer), ("NoAns_", ~has_answer)):
        if chosen.any():
            name = "exact" if prefix else "exact_match"
            found[f"{prefix}{name}"], found[f"{prefix}f1"] = _percent(exact[chosen]), _percent(overlap[chosen])
            found[f"{prefix}total"] = int(chosen.sum())
    if best_texts is not None and null_odds is not None:
        for name, values in zip(("exact", "f1"), _scores(best_texts, answers, version_2=True), strict=True):
            found[f"best_{name}"], found[f"best_{name}_thresh"] = best_threshold(values, null_odds, ~has_answer)
    return found


def best_threshold(scores: np.ndarray, null_odds: np.ndarray, without_answer: np.ndarray) -> tuple[float, float]:
    """Find the threshold at which answering scores most: what exceeds it is left without an answer.

    Args:
        scores: float (n,), of what would be answered, 0 to 1.
        null_odds: float (n,), log odds of no answer.
        without_answer: bool (n,), whether none is right.

    Returns:
        The best mean score in percent and the least threshold that gives it, one of `null_odds` or, where it is best
        to answer nothing, 1 less than all of them.
    """
    order = np.argsort(null_odds, kind="stable")
    odds = null_odds[order]
    gains = np.where(without_answer, scores - 1.0, scores)[order]
    totals = np.concatenate([[0.0], np.cumsum(gains)]) + without_answer.sum()
    thresholds = np.concatenate([odds[:1] - 1.0, odds])
    is_last = np.append(thresholds[1:] != thresholds[:-1], True)  # equal odds are answered together
    best = int(np.flatnonzero(is_last)[np.argmax(totals[is_last])])
    return 100.0 * float(totals[best]) / len(scores), float(thresholds[best])


def _scores(
    predictions: Sequence[str], answers: Sequence[Sequence[str]], version_2: bool
) -> tuple[np.ndarray, np.ndarray]:
    pairs = list(zip(predictions, answers, strict=True))
    exact = [max(exact_match(prediction, text) for text in texts) for prediction, texts in pairs]
    overlap = [max(f1(prediction, text, version_2) for text in texts) for prediction, texts in pairs]
    return np.array(exact), np.array(overlap)


def _percent(scores: np.ndarray) -> float:
    return 100.0 * float(scores.mean())
