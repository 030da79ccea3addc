"""SQuAD's files: official JSON of versions 1.1 and 2.0, read with suspicion."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.errors import InputError

_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


class Answer(NamedTuple):
    """An answer as an annotator gave it."""

    text: str
    start: int
    """Its first character in the passage, as the file says."""


class Question(NamedTuple):
    """A question about a passage."""

    id: str
    text: str
    passage: int
    """Number of its passage."""
    answers: tuple[Answer, ...] | None
    """Of each annotator; empty where the passage holds none, None where the file does not tell."""


class SquadSet(NamedTuple):
    """Passages and the questions about them, in the order of the files."""

    where: str
    """The files, for messages."""
    passages: tuple[str, ...]
    questions: tuple[Question, ...]


def read_squad(paths: Sequence[Path]) -> SquadSet:
    """Read files of SQuAD's official layout, of either version, as one set.

    A lone surrogate, which JSON can spell and UTF-8 cannot hold, becomes U+FFFD.  `answers` may be missing, as in a
    test set; the other keys may not.

    Raises:
        InputError: naming the file, and the place in it, that cannot be used.
    """
    passages: list[str] = []
    questions: list[Question] = []
    for path in paths:
        before = len(questions)
        for place, paragraph in _paragraphs(path, _parsed(path)):
            context = _text(path, place, paragraph, "context")
            for index, entry in enumerate(_list(path, place, paragraph, "qas")):
                questions.append(_question(path, f"{place}.qas[{index}]", entry, len(passages)))
            passages.append(context)
        if len(questions) == before:
            raise InputError(f"{path}: there is no question in it. Name a file of SQuAD's layout that has some.")
    return SquadSet(", ".join(map(str, paths)), tuple(passages), tuple(questions))


def check_ids(squad: SquadSet) -> None:
    """Refuse two questions with one id: predictions are stored by id.

    Raises:
        InputError: naming the first that stands twice.
    """
    seen: set[str] = set()
    for question in squad.questions:
        if question.id in seen:
            raise InputError(
                f"{squad.where}: the id {question.id!r} stands twice, but predictions are stored by id. "
                "Give each question an id of its own."
            )
        seen.add(question.id)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not UTF-8 text; wanted SQuAD's JSON.") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}. Name a JSON file of SQuAD's layout.") from None
    if not text.strip():
        raise InputError(f"{path}: it is empty; wanted SQuAD's JSON. Download or write it again.")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: line {error.lineno}, column {error.colno}: this is not JSON ({error.msg}). Mend the file, or "
            "download it again if it was cut off."
        ) from None
    except (RecursionError, ValueError):  # a thousand brackets, a number of 5,000 digits
        raise InputError(f"{path}: this is no file of SQuAD's layout. Name another.") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        found = f"keys {sorted(content)[:5]}" if isinstance(content, dict) else _kind(content)
        raise InputError(
            f'{path}: found {found} at the top; wanted SQuAD\'s layout: {{"data": [{{"paragraphs": [{{"context": …, '
            '"qas": [{"id": …, "question": …, "answers": [{"text": …, "answer_start": …}]}]}]}]}.'
        )
    return content


def _paragraphs(path: Path, content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, article in enumerate(content["data"]):
        place = f"data[{number}]"
        for index, paragraph in enumerate(_list(path, place, article, "paragraphs")):
            yield f"{place}.paragraphs[{index}]", paragraph


def _question(path: Path, place: str, entry: Any, passage: int) -> Question:
    text = _text(path, place, entry, "question")
    name = entry.get("id")
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str):
        raise InputError(f'{path}: {place}: "id" is {_kind(name)}; wanted a text.')
    impossible = entry.get("is_impossible")
    if not isinstance(impossible, bool | None):
        raise InputError(f'{path}: {place}: "is_impossible" is {_kind(impossible)}; wanted true or false.')
    answers: tuple[Answer, ...] | None = () if impossible else None
    if not impossible and entry.get("answers") is not None:
        listed = _list(path, place, entry, "answers")
        answers = tuple(_answer(path, f"{place}.answers[{index}]", answer) for index, answer in enumerate(listed))
    return Question(_clean(name), text, passage, answers)


def _answer(path: Path, place: str, entry: Any) -> Answer:
    text = _text(path, place, entry, "text")
    start = entry.get("answer_start")
    if type(start) is not int:
        raise InputError(f'{path}: {place}: "answer_start" is {_kind(start)}; wanted a whole number.')
    return Answer(text, start)


def _text(path: Path, place: str, entry: Any, key: str) -> str:
    value = _value(path, place, entry, key)
    if not isinstance(value, str):
        raise InputError(f'{path}: {place}: "{key}" is {_kind(value)}; wanted a text.')
    return _clean(value)


def _list(path: Path, place: str, entry: Any, key: str) -> list[Any]:
    value = _value(path, place, entry, key)
    if not isinstance(value, list):
        raise InputError(f'{path}: {place}: "{key}" is {_kind(value)}; wanted a list.')
    return value


def _value(path: Path, place: str, entry: Any, key: str) -> Any:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {place} is {_kind(entry)}; wanted an object with {key!r}.")
    return entry.get(key)


def _clean(text: str) -> str:
    return _SURROGATE.sub(_REPLACEMENT, text)


def _kind(value: Any) -> str:
    kinds = {type(None): "missing", bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")
