"""Windows: every word is asked about once, with context, and put together they are the whole sentence."""

import itertools

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.ner.conll import read_conll
from bert_pytorch.tasks.ner.windows import window_sentences, windows_of
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.vocabulary import read_vocabulary
from tests.support.data import real_encoder, shared_data
from tests.support.vocabularies import small_byte_bpe, small_vocabulary


@given(st.integers(1, 700), st.integers(1, 80))
def test_each_token_is_asked_about_once_with_a_quarter_of_a_window_around_it(length: int, most: int) -> None:
    windows = list(windows_of(length, most))
    asked = [place for window in windows for place in range(window.asked_start, window.asked_stop)]
    assert asked == list(range(length))
    for window in windows:
        assert 0 <= window.start <= window.asked_start <= window.asked_stop <= window.stop <= length
        assert window.stop - window.start == min(most, length)
        assert window.start == 0 or window.asked_start - window.start >= most // 4
        assert window.stop == length or window.stop - window.asked_stop >= most // 4


def test_a_sentence_that_fits_is_one_window_and_one_token_more_makes_two() -> None:
    assert [tuple(window) for window in windows_of(8, 8)] == [(0, 8, 0, 8)]
    assert [tuple(window) for window in windows_of(9, 8)] == [(0, 8, 0, 4), (1, 9, 4, 9)]


def sequences(windows: Features) -> list[tuple[list[int], list[int]]]:
    cuts, words = itertools.pairwise(windows.cu_seqlens.tolist()), windows.extra["words"]
    return [(windows.input_ids[start:stop].tolist(), words[start:stop].tolist()) for start, stop in cuts]


def asked(windows: Features) -> np.ndarray:
    """Return the words that are tagged, in the order of tokens."""
    words = windows.extra["words"]
    return words[words >= 0]


def test_words_are_tagged_at_their_first_token() -> None:
    tokenizer = Tokenizer(small_vocabulary())
    id_of = tokenizer.vocabulary.id_of
    windows = window_sentences(["the", "kings", "Paris", "."], [0, 2, 4], tokenizer, 40)
    first, second = sequences(windows)
    kings = [id_of(token) for token in ("k", "##ing", "##s")]
    assert first == ([id_of("[CLS]"), id_of("the"), *kings, id_of("[SEP]")], [-1, 0, 1, -1, -1, -1])
    assert second == ([id_of(token) for token in ("[CLS]", "paris", ".", "[SEP]")], [-1, 2, 3, -1])
    assert windows.examples.tolist() == [0, 1]


def test_words_without_a_token_are_tagged_nowhere() -> None:
    windows = window_sentences(["\u200b", "the", "\x00", "", "\ufffd"], [0, 2, 3, 5], Tokenizer(small_vocabulary()), 40)
    assert asked(windows).tolist() == [1]
    assert windows.examples.tolist() == [0]
    nothing = window_sentences([""], [0, 1], Tokenizer(small_vocabulary()), 40)
    assert nothing.cu_seqlens.tolist() == [0]


@pytest.mark.parametrize("vocabulary", [small_vocabulary(), small_byte_bpe(), small_byte_bpe(add_prefix_space=False)])
@given(lengths=st.lists(st.integers(1, 30), max_size=5), most=st.integers(3, 24), seed=st.integers(0, 999))
def test_windows_put_together_are_the_whole_sentences(vocabulary, lengths, most, seed) -> None:
    tokenizer = Tokenizer(vocabulary, fast=False)
    rng = np.random.default_rng(seed)
    pool = ["the", "singing", "a", "", "\x00", "kings", "internationalisation", "."]
    words = [pool[index] for index in rng.integers(0, len(pool), sum(lengths))]
    starts = np.cumsum([0, *lengths]).tolist()
    whole, cut = (window_sentences(words, starts, tokenizer, size) for size in (10_000, most))
    assert int(np.diff(cut.cu_seqlens).max(initial=0)) <= most
    for windows in (whole, cut):  # the same words at the same tokens, each once and in order
        assert asked(windows).tolist() == asked(whole).tolist()
    assert np.array_equal(cut.input_ids[cut.extra["words"] >= 0], whole.input_ids[whole.extra["words"] >= 0])
    text_of = dict(zip(whole.examples.tolist(), sequences(whole), strict=True))
    for sentence, (ids, _) in zip(cut.examples.tolist(), sequences(cut), strict=True):
        inner = ids[1:-1]
        within = text_of[sentence][0]
        assert (ids[0], ids[-1]) == (within[0], within[-1])
        assert any(within[start : start + len(inner)] == inner for start in range(len(within)))


def test_a_real_file_has_the_tokens_that_transformers_gives_split_words() -> None:
    folder = real_encoder()
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    file = read_conll(shared_data("ner", "conll2003", "eng.testa"))
    count = 400
    starts = file.starts[: count + 1]
    words = file.words[: starts[-1]]
    found = sequences(window_sentences(words, starts, Tokenizer(read_vocabulary(folder)), 512))
    for index, (ids, tagged) in enumerate(found):
        wanted = theirs(list(words[starts[index] : starts[index + 1]]), is_split_into_words=True)
        assert ids == wanted["input_ids"]
        whose = wanted.word_ids()
        first = [
            -1 if word is None or word == whose[place - 1] else word + starts[index] for place, word in enumerate(whose)
        ]
        assert tagged == first
