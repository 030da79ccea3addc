"""Words of running text: by hand, and as the sentences of CoNLL-2003 are split."""

import pytest

from bert_pytorch.inference.words import words_apart_by_spaces, words_of
from bert_pytorch.tasks.ner.conll import read_conll
from tests.support.data import shared_data

CASES = {
    "Angela Merkel met Barack Obama in Berlin.": "Angela|Merkel|met|Barack|Obama|in|Berlin|.",
    "U.S. troops, he said (twice), left.": "U.S.|troops|,|he|said|(|twice|)|,|left|.",
    "“Peace!” it's J. Smith's, isn't it?": "“|Peace|!|”|it|'s|J.|Smith|'s|,|isn't|it|?",
    "AT&T paid $3.5m; well-known 3.5.": "AT&T|paid|$3.5m|;|well-known|3.5.",
    "... 's . '": ".|.|.|'|s|.|'",
    "  \t ": "",
}


@pytest.mark.parametrize("text", CASES)
def test_words_are_those_found_by_hand(text: str) -> None:
    found = words_of(text)
    assert "|".join(word.word for word in found) == CASES[text]
    assert [text[word.start : word.stop] for word in found] == [word.word for word in found]


def test_nothing_but_spaces_is_lost_between_words() -> None:
    for text in CASES:
        assert "".join(word.word for word in words_of(text)) == "".join(text.split())
        assert [word.word for word in words_apart_by_spaces(text)] == text.split()


def test_nearly_all_sentences_of_a_real_file_are_split_as_in_the_file() -> None:
    file = read_conll(shared_data("ner", "conll2003", "eng.testa"))
    sentences = [list(words) for words in file.sentences(file.words)]
    same = [[word.word for word in words_of(_as_prose(words))] == words for words in sentences]
    assert sum(same) / len(same) > 0.85


def _as_prose(words: list[str]) -> str:
    text = " ".join(words)
    for mark in (".", ",", ";", ":", "?", "!", ")", "'s"):
        text = text.replace(f" {mark} ", f"{mark} ").removesuffix(f" {mark}") + mark * text.endswith(f" {mark}")
    return text.replace("( ", "(")
