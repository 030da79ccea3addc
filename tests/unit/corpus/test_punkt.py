"""The fast splitter beside NLTK's own: the same sentences on real and made-up text, whatever the parameters."""

import sys

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

from bert_pytorch.corpus.punkt import FastPunkt, learn
from tests.support.data import real_texts, shared_data


@pytest.fixture(scope="module")
def learnt() -> PunktParameters:
    parameters = learn(real_texts("state_union", 4))
    parameters.abbrev_types |= {"u.s", "mr", "e.g", "co-op"}
    parameters.collocations |= {("##number##", "may"), ("word", "the"), ("a", "b")}
    parameters.sent_starters |= {"the", "b"}
    return parameters


def paragraphs(text: str) -> list[str]:
    return [words for line in text.split("\n") if (words := " ".join(line.split()))]


@pytest.mark.parametrize("folder", ["inaugural", "state_union", "movie_reviews", "wikitext-2"])
def test_real_text_is_split_as_nltk_does(learnt: PunktParameters, folder: str) -> None:
    wikitext = folder == "wikitext-2"
    texts = [shared_data(folder, "valid.txt").read_text(encoding="utf-8")] if wikitext else real_texts(folder, 60)
    reference, fast, count = PunktSentenceTokenizer(learnt), FastPunkt(learnt), 0
    for paragraph in paragraphs("\n".join(texts) + "\n" + " ".join(texts[0].split())):
        sentences = fast.split(paragraph)
        assert sentences == reference.tokenize(paragraph)
        count += len(sentences)
    assert count > 1000


PIECES = [
    *"..?!,;:-'\"()[]{}*@/ab1    ",
    *"\u2018\u2019\u201c\u201d\xab\xbb\u2026\u0130\u03a3\u4e2d\u0661\u200b",
    *("Mr.", "the", " The ", "U.S.", ". . .", "1999.", " A.", "--", " word. the", "co-op.", " May", "e.g.", "...", "B"),
]


def test_what_follows_decides_where_punkt_asks_for_it(learnt: PunktParameters) -> None:
    text = "Not a word. the next. It was Mr. A. Miller in 1999. may be. So U.S. The end. On 5. May it rained... and so."
    sentences = FastPunkt(learnt).split(text)
    assert sentences == PunktSentenceTokenizer(learnt).tokenize(text)
    assert sentences[0] == "Not a word. the next."  # a collocation


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25), st.booleans())
def test_made_up_text_is_split_as_nltk_does(learnt: PunktParameters, pieces: list[str], trained: bool) -> None:
    parameters = learnt if trained else PunktParameters()
    text = " ".join("".join(pieces).split())
    assert FastPunkt(parameters).split(text) == PunktSentenceTokenizer(parameters).tokenize(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=100))
def test_any_text_is_split_as_nltk_does(learnt: PunktParameters, text: str) -> None:
    words = " ".join(text.split())
    assert FastPunkt(learnt).split(words) == PunktSentenceTokenizer(learnt).tokenize(words)


def test_no_white_space_of_nltks_patterns_is_left_where_words_are_joined() -> None:
    characters = "".join(map(chr, range(sys.maxunicode + 1)))
    assert all(character.isspace() for character in regex.findall(r"\s", characters))
