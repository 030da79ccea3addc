"""Words of running text with their places, as the tokens of CoNLL files are apart: marks by themselves."""

import re
from collections.abc import Iterator
from typing import NamedTuple


class Word(NamedTuple):
    """A word and where it stands."""

    word: str
    start: int
    """Of its first character in the text."""
    stop: int


_OPENING = "\"'`([{<«„“\u2018"
_CLOSING = "\"'`)]}>»”\u2019,;:!?…"
_ENDINGS = re.compile("(?i)['\u2019](s|re|ve|ll|d|m)$")


def words_apart_by_spaces(text: str) -> list[Word]:
    """Return what stands between spaces."""
    return [Word(found.group(), found.start(), found.end()) for found in re.finditer(r"\S+", text)]


def words_of(text: str) -> list[Word]:
    """Return the words of a text, brackets, quotation marks and what ends a clause or sentence apart from them.

    Marks inside of a word stay (AT&T, 3.5, well-known), so does the full stop of what has another one or is a single
    letter (U.S., J.); 's and its like are words.
    """
    return [
        Word(text[start:stop], start, stop)
        for whole in words_apart_by_spaces(text)
        for start, stop in _parts(text, whole.start, whole.stop)
    ]


def _parts(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    while start < stop and text[start] in _OPENING:
        yield start, start + 1
        start += 1
    behind: list[tuple[int, int]] = []
    while start < stop:
        ending = _ENDINGS.search(text[start:stop])
        if ending is not None and ending.start() > 0:
            size = len(ending.group())
        elif text[stop - 1] in _CLOSING or (text[stop - 1] == "." and not _keeps_its_stop(text[start : stop - 1])):
            size = 1
        else:
            break
        behind.append((stop - size, stop))
        stop -= size
    if start < stop:
        yield start, stop
    yield from reversed(behind)


def _keeps_its_stop(word: str) -> bool:
    return "." in word.strip(".") or (len(word) == 1 and word.isalpha())
