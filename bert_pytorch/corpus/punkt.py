"""Punkt (Kiss and Strunk 2006): the sentences of NLTK's tokenizer, an order of magnitude faster, and its parameters.

NLTK decides at each full stop by cutting out the words around it and tokenizing them anew.  Most full stops need only a
look-up: the word before them is known to end a sentence whatever follows.  The others are left to NLTK.
"""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nltk
import nltk.redos
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTokenizer, PunktTrainer

from bert_pytorch.errors import InputError

_CANDIDATE = re.compile(r"""[.?!](?=[ )";}\]*:@'({\[\u2018\u2019\u201c\u201d\xab\xbb?!])""")
"""A character that may end a sentence, not the text's last (PunktLanguageVars.period_context_re)."""
_CLOSING = "\"')]}\u2018\u2019\u201c\u201d\xab\xbb"
_CLOSING_WORD = re.compile(rf"[{re.escape(_CLOSING)}]+?(?: |(?=--)|$)")
"""What belongs to the sentence that it follows (PunktLanguageVars.re_boundary_realignment)."""
_REMEMBERED = 1 << 16


class FastPunkt:
    """Splits as `PunktSentenceTokenizer(parameters).tokenize` does, where words are separated by single spaces."""

    def __init__(self, parameters: PunktParameters) -> None:
        lift_time_limit()
        self._reference = PunktSentenceTokenizer(parameters)
        self._first_of_collocation = {first for first, _ in parameters.collocations}
        self._ends_always = functools.lru_cache(_REMEMBERED)(self._word_ends_always)
        self._breaks = functools.lru_cache(_REMEMBERED)(self._reference.text_contains_sentbreak)

    def split(self, text: str) -> list[str]:
        """Split a paragraph into sentences.

        Args:
            text: its only white space is single spaces between words, as `" ".join(paragraph.split())` makes it.
        """
        starts, ends = [0], []
        word_start = place = -1
        following_word = 0
        for match in _CANDIDATE.finditer(text):
            following = match.start()
            space = text.rfind(" ", max(place, 0), following)
            following_word = space + 1 if space >= 0 else max(word_start, 0)
            if place >= 0 and place <= following_word and self._is_end(text, word_start, place):
                ends.append(place + 1)
                starts.append(place + 2 if text[place + 1] == " " else place + 1)
            word_start, place = following_word, following
        if place >= 0 and self._is_end(text, word_start, place):
            ends.append(place + 1)
            starts.append(place + 2 if text[place + 1] == " " else place + 1)
        ends.append(len(text))
        if any(text[start] in _CLOSING for start in starts[1:]):
            return _realigned(text, starts, ends)
        return [text[start:end] for start, end in zip(starts, ends, strict=True)] if text else []

    def _is_end(self, text: str, word_start: int, place: int) -> bool:
        """Whether a sentence ends at `place`, the candidate that ends the word from `word_start`."""
        if text[place] != "." or self._ends_always(text[word_start : place + 1]):
            return True
        if text[place + 1] != " ":
            return self._breaks(text[word_start : place + 2])
        end = text.find(" ", place + 2)
        return self._breaks(text[word_start : end if end >= 0 else len(text)])

    def _word_ends_always(self, word: str) -> bool:
        """Whether a sentence ends after `word`, which ends in a full stop, whatever follows.

        True leaves Punkt's second pass nothing to change: it looks at abbreviations, ellipses, initials, numbers and
        collocations only.
        """
        tokens = list(self._reference._annotate_first_pass(self._reference._tokenize_words(word)))
        last = tokens[-1]
        return bool(
            last.sentbreak
            and not last.is_initial
            and last.type_no_period != "##number##"
            and last.type_no_period not in self._first_of_collocation
        )


def _realigned(text: str, starts: list[int], ends: list[int]) -> list[str]:
    """Give closing quotation marks and brackets back to the sentence before them (_realign_boundaries of NLTK)."""
    sentences, moved = [], 0
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        closing = _CLOSING_WORD.match(text, starts[index + 1], ends[index + 1]) if index + 1 < len(starts) else None
        stop = starts[index + 1] + len(closing.group().rstrip()) if closing else end
        if sentence := text[start + moved : stop]:
            sentences.append(sentence)
        moved = len(closing.group()) if closing else 0
    return sentences


def lift_time_limit() -> None:
    """Take away NLTK's limit of 5 s for going through one text.

    It guards against patterns that blow up; Punkt's are linear in the text (measured on 0.2 to 1 million full stops and
    exclamation marks), and whether a long paragraph passes must not depend on how busy the machine is.
    """
    nltk.redos.DEFAULT_TIMEOUT = None


def pretrained(language: str) -> PunktParameters | None:
    """Return the parameters for a language that NLTK's data have, or None where they are not installed."""
    try:
        nltk.data.find(f"tokenizers/punkt_tab/{language}/")
    except LookupError:
        return None
    return PunktTokenizer(language)._params


def learn(texts: Iterable[str]) -> PunktParameters:
    """Learn parameters from texts, one after the other."""
    lift_time_limit()
    trainer = PunktTrainer()
    for text in texts:
        trainer.train(text, finalize=False)
    trainer.finalize_training()
    return trainer.get_params()


def to_json(parameters: PunktParameters) -> dict[str, Any]:
    """Return the content of `punkt.json`."""
    return {
        "abbreviations": sorted(parameters.abbrev_types),
        "collocations": sorted(map(list, parameters.collocations)),
        "sentence_starters": sorted(parameters.sent_starters),
        "orthographic_context": dict(sorted(parameters.ortho_context.items())),
    }


def load(path: Path) -> PunktParameters:
    """Read the parameters that a `punkt.json` holds.

    Raises:
        InputError: if it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: no parameters of Punkt ({type(error).__name__}: {error}). Name a punkt.json that `format` wrote."
        ) from None


def _from_json(content: dict[str, Any]) -> PunktParameters:
    parameters = PunktParameters()
    parameters.abbrev_types = set(content["abbreviations"])
    parameters.collocations = {(first, second) for first, second in content["collocations"]}
    parameters.sent_starters = set(content["sentence_starters"])
    parameters.ortho_context.update({word: int(flags) for word, flags in content["orthographic_context"].items()})
    return parameters
