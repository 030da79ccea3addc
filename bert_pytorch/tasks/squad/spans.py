"""Where answers stand: characters of the passage, tokens of the passage, tokens of each window."""

import logging
import re
from typing import NamedTuple

import numpy as np

from bert_pytorch.errors import InputError
from bert_pytorch.tasks.squad.files import Answer, SquadSet
from bert_pytorch.tasks.squad.windows import TokenizedQuestions, Windows
from bert_pytorch.tokenization.placed import PlacedTokens

NO_ANSWER = -1

logger = logging.getLogger(__name__)


class Characters(NamedTuple):
    """Part of a passage, in characters."""

    start: int
    end: int
    """One past the last."""


class Targets(NamedTuple):
    """What q questions are trained to, in tokens of their passages; `NO_ANSWER` in both where there is none."""

    firsts: np.ndarray
    """int64 (q,)."""
    lasts: np.ndarray
    """int64 (q,), the last one, itself included."""


class TrainingSet(NamedTuple):
    """Questions that can be learnt from, and the place of the answer to each."""

    squad: SquadSet
    places: tuple[Characters | None, ...]
    """None where the passage holds no answer (version 2.0)."""


def training_set(squad: SquadSet, version_2: bool, verbose: bool = False) -> TrainingSet:
    """Take the questions that can be learnt from; of several annotators' answers the first.

    Answers that do not stand where the file says cannot be learnt: their questions are left out, and told in one line
    of the log.

    Args:
        squad: whole files.
        version_2: whether questions without an answer are learnt as such (--version_2_with_negative).
        verbose: whether to name each question that is left out, not only the first.

    Raises:
        InputError: if answers are missing, or nothing is left.
    """
    check_answered(squad, version_2)
    kept, places, wrong = [], [], []
    for question in squad.questions:
        answer = question.answers[0] if question.answers else None
        place = None if answer is None else place_of(squad.passages[question.passage], answer)
        if answer is not None and place is None:
            wrong.append((question, answer))
            continue
        kept.append(question)
        places.append(place)
    if wrong:
        question, answer = wrong[0]
        passage = squad.passages[question.passage]
        found = passage[max(answer.start, 0) :][: max(len(answer.text), 1)]
        problem = (
            f"{squad.where}: {len(wrong)} of {len(squad.questions)} answers do not stand in their passage at "
            f"answer_start, such as that of {question.id!r}: wanted {_short(answer.text)} from character "
            f"{answer.start} on, found {_short(found)}."
        )
        if not kept:
            raise InputError(f"{problem} Mend answer_start, which counts characters, not bytes, from 0.")
        logger.warning("%s These questions are not trained on.", problem)
        for question, answer in wrong[1:] if verbose else ():
            logger.warning("not trained on: %r, %s at %d", question.id, _short(answer.text), answer.start)
    return TrainingSet(squad._replace(questions=tuple(kept)), tuple(places))


def check_answered(squad: SquadSet, version_2: bool) -> None:
    """Refuse questions whose answers are not known, or, in version 1.1, not there.

    Raises:
        InputError: naming the first.
    """
    unknown = [question.id for question in squad.questions if question.answers is None]
    if unknown:
        raise InputError(
            f'{squad.where}: {len(unknown)} questions have no "answers", such as {unknown[0]!r}: this file can be '
            "predicted (--predict_file), neither trained on nor evaluated."
        )
    without = [question.id for question in squad.questions if not question.answers]
    if without and not version_2:
        raise InputError(
            f"{squad.where}: {len(without)} questions have no answer, such as {without[0]!r}: for files of SQuAD 2.0 "
            "give --version_2_with_negative."
        )


def place_of(passage: str, answer: Answer) -> Characters | None:
    """Return where an answer stands, less whitespace around it; None where the passage has another text there.

    Runs of whitespace count as equal, as for Google's reader, which compares words.
    """
    words = answer.text.split()
    if not words or not 0 <= answer.start <= len(passage):
        return None
    end = answer.start + len(answer.text)
    if passage[answer.start : end] == answer.text:
        start = answer.start + len(answer.text) - len(answer.text.lstrip())
        return Characters(start, start + len(answer.text.strip()))
    found = re.compile(r"\s*(" + r"\s+".join(map(re.escape, words)) + ")").match(passage, answer.start)
    return Characters(*found.span(1)) if found else None


def targets_of(places: tuple[Characters | None, ...], tokens: TokenizedQuestions) -> Targets:
    """Return the tokens of each answer: the fewest that hold it.

    Google's reader takes whole words, and then (`_improve_answer_span`) the tokens within them that spell the answer:
    the same tokens, except where a word is cut in a place that no token spells, as `play` in `replay`.
    """
    firsts, lasts = np.full(len(places), NO_ANSWER), np.full(len(places), NO_ANSWER)
    for index, (place, passage) in enumerate(zip(places, tokens.passage_of.tolist(), strict=True)):
        if place is not None:
            firsts[index], lasts[index] = tokens_of(place, tokens.passages, passage)
    return Targets(firsts, lasts)


def tokens_of(place: Characters, passages: PlacedTokens, passage: int) -> tuple[int, int]:
    """Return the first and the last token that have part in `place`; twice `NO_ANSWER` where none has."""
    begin, end = passages.offsets[passage : passage + 2]
    first = int(np.searchsorted(passages.ends[begin:end], place.start, side="right"))
    last = int(np.searchsorted(passages.starts[begin:end], place.end, side="left")) - 1
    return (first, last) if first <= last else (NO_ANSWER, NO_ANSWER)


def window_labels(targets: Targets, windows: Windows) -> np.ndarray:
    """Return the first and last token of the answer within each window: int64 (n, 2).

    0, the place of `[CLS]`, in windows that do not hold the whole answer, and where there is none.
    """
    first, last = targets.firsts[windows.questions], targets.lasts[windows.questions]
    inside = (first != NO_ANSWER) & (windows.starts <= first) & (last < windows.starts + windows.lengths)
    shift = windows.passage_places - windows.starts
    return np.where(inside[:, None], np.stack([first + shift, last + shift], axis=1), 0)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
