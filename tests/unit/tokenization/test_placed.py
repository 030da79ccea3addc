"""Tokens say which characters they stand for: the ids are those of `encode_flat`, the characters spell the token."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.vocabulary import CONTINUATION
from tests.support.squad_files import real_tokenizer
from tests.support.vocabularies import small_byte_bpe
from tests.unit.tokenization.test_tokenizer import AWKWARD

TOKENIZERS = {prefix: Tokenizer(small_byte_bpe(False, prefix)) for prefix in (True, False)}
TEXTS = st.text(st.sampled_from("aéE\u0301\u0302 \n\u00a0.,-1中ßÅİﬁ\ud800\U0001f600\u200d"), max_size=20)


def plain(text: str) -> str:
    """Lower case without accents, as an uncased BERT sees it."""
    decomposed = unicodedata.normalize("NFD", text.lower())
    return "".join(character for character in decomposed if unicodedata.category(character) != "Mn")


def check_ids_and_order(tokenizer: Tokenizer, texts: list[str]) -> None:
    placed, flat = tokenizer.encode_placed(texts), tokenizer.encode_flat(texts)
    assert placed.ids.tolist() == flat.ids.tolist()
    assert placed.offsets.tolist() == flat.offsets.tolist()
    for index, text in enumerate(texts):
        own = slice(*placed.offsets[index : index + 2])
        starts, ends = placed.starts[own], placed.ends[own]
        assert np.all(np.diff(starts) >= 0)
        assert np.all(np.diff(ends) >= 0)
        assert np.all((starts >= 0) & (starts <= ends) & (ends <= len(text)))
        pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        assert not any(piece[:1].isspace() or piece[-1:].isspace() for piece in pieces)


@given(st.lists(TEXTS, max_size=4))
@settings(max_examples=150, deadline=None)
def test_ids_are_those_of_encode_flat_and_places_rise(texts):
    for tokenizer in (real_tokenizer(), *TOKENIZERS.values()):
        check_ids_and_order(tokenizer, texts)


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_the_characters_of_a_word_piece_spell_it(text):
    tokenizer = real_tokenizer()
    placed = tokenizer.encode_placed([text])
    for index, start, end in zip(placed.ids.tolist(), placed.starts, placed.ends, strict=True):
        piece = tokenizer.vocabulary.tokens[index]
        if piece != tokenizer.vocabulary.special.unknown:
            spelt = "".join(c for c in plain(text[start:end]) if unicodedata.category(c) not in ("Cf", "Cs", "Cc"))
            assert spelt == piece.removeprefix(CONTINUATION)


def test_awkward_texts_are_placed():
    check_ids_and_order(real_tokenizer(), list(AWKWARD))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Rene\u0301e, cafe\u0301", ["Rene\u0301e", ",", "cafe\u0301"]),  # a mark belongs to the letter before it
        ("e\u0301\u0302x", ["e\u0301\u0302x"]),
        ("don't", ["don", "'", "t"]),
        ("東京都", ["東", "京", "都"]),
        ("a\u00a0\u2003b", ["a", "b"]),
        ("\U0001f600 b", ["\U0001f600", "b"]),
        ("", []),
        (" \n", []),
    ],
)
def test_words_and_marks_are_given_back(text, pieces):
    placed = real_tokenizer().encode_placed([text])
    assert [text[start:end] for start, end in zip(placed.starts, placed.ends, strict=True)] == pieces


@pytest.mark.parametrize("prefix", [True, False])
def test_byte_level_bpe_leaves_spaces_out_and_repeats_characters_of_several_bytes(prefix):
    text = "the king of 東 sings"
    placed = TOKENIZERS[prefix].encode_placed([text])
    pieces = [text[start:end] for start, end in zip(placed.starts, placed.ends, strict=True)]
    assert pieces == ["the", "", "k", "ing", "", "o", "f", "", "東", "東", "東", "", "s", "ing", "s"]
