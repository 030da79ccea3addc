"""SQuAD as Google's run_squad defines it, one question at a time, in plain Python and in our words.

Passages are words split at whitespace; an answer is whole words, then tightened to the tokens that spell it; a window
begins `doc_stride` tokens after the one before; a token counts in the window where it has the most context.
"""

import functools
import math
from typing import NamedTuple

from bert_pytorch.tokenization.tokenizer import Tokenizer

WHITESPACE = " \t\r\n\u202f"


class Window(NamedTuple):
    ids: list[int]
    start: int
    """First token of the passage in it."""
    length: int
    place: int
    """Where that token stands in `ids`."""


class Passage(NamedTuple):
    words: list[str]
    word_of_character: list[int]
    tokens: list[str]
    word_of_token: list[int]
    first_token_of_word: list[int]


@functools.cache
def pieces(tokenizer: Tokenizer, text: str) -> tuple[str, ...]:
    return tuple(tokenizer.vocabulary.tokens[index] for index in tokenizer.encode_flat([text]).ids.tolist())


@functools.cache
def id_of(tokenizer: Tokenizer) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokenizer.vocabulary.tokens)}


@functools.cache
def split_passage(tokenizer: Tokenizer, text: str) -> Passage:
    words: list[str] = []
    word_of_character = []
    after_space = True
    for character in text:
        if character in WHITESPACE:
            after_space = True
        else:
            if after_space:
                words.append("")
            words[-1] += character
            after_space = False
        word_of_character.append(len(words) - 1)
    tokens: list[str] = []
    word_of_token, firsts = [], []
    for number, word in enumerate(words):
        firsts.append(len(tokens))
        for token in pieces(tokenizer, word):
            tokens.append(token)
            word_of_token.append(number)
    return Passage(words, word_of_character, tokens, word_of_token, firsts)


def windows_of(
    tokenizer: Tokenizer, question: str, passage: Passage, max_seq_length: int, doc_stride: int, max_query_length: int
) -> list[Window]:
    query = pieces(tokenizer, question)[:max_query_length]
    room = max_seq_length - len(query) - 3
    windows, start = [], 0
    while True:
        part = passage.tokens[start : start + room]
        tokens = ["[CLS]", *query, "[SEP]", *part, "[SEP]"]
        windows.append(Window([id_of(tokenizer)[token] for token in tokens], start, len(part), len(query) + 2))
        if start + len(part) == len(passage.tokens):
            return windows
        start += min(len(part), doc_stride)


def answer_tokens(tokenizer: Tokenizer, passage: Passage, text: str, character: int) -> tuple[int, int, bool]:
    """Return the first and last token of an answer, and whether tightening found tokens that spell it."""
    first = passage.first_token_of_word[passage.word_of_character[character]]
    last_word = passage.word_of_character[character + len(text) - 1]
    following = [*passage.first_token_of_word, len(passage.tokens)][last_word + 1]
    last = following - 1
    wanted = " ".join(pieces(tokenizer, text))
    for start in range(first, last + 1):
        for end in range(last, start - 1, -1):
            if " ".join(passage.tokens[start : end + 1]) == wanted:
                return start, end, True
    return first, last, False


def label(window: Window, first: int, last: int) -> tuple[int, int]:
    if first < window.start or last >= window.start + window.length:
        return 0, 0
    return first - window.start + window.place, last - window.start + window.place


def is_max_context(windows: list[Window], index: int, token: int) -> bool:
    best, chosen = -math.inf, -1
    for number, window in enumerate(windows):
        end = window.start + window.length - 1
        if window.start <= token <= end:
            score = min(token - window.start, end - token) + 0.01 * window.length
            if score > best:
                best, chosen = score, number
    return chosen == index


class Span(NamedTuple):
    first: int
    """Token of the passage, -1 for no answer."""
    last: int
    start_logit: float
    end_logit: float


class Ranking(NamedTuple):
    spans: list[Span]
    """Best first, before texts that repeat are taken out."""
    null: Span
    """Of the window where no answer scores least."""


def rank(windows: list[Window], scores: list[list[tuple[float, float]]], n_best: int, longest: int) -> Ranking:
    spans = []
    null, least = None, math.inf
    for number, (window, logits) in enumerate(zip(windows, scores, strict=True)):
        starts = sorted(range(len(logits)), key=lambda i: logits[i][0], reverse=True)[:n_best]
        ends = sorted(range(len(logits)), key=lambda i: logits[i][1], reverse=True)[:n_best]
        if sum(logits[0]) < least:
            least, null = sum(logits[0]), Span(-1, -1, *logits[0])
        for start in starts:
            for end in ends:
                first, last = start - window.place + window.start, end - window.place + window.start
                in_passage = range(window.place, window.place + window.length)
                if start not in in_passage or end not in in_passage or end < start or end - start + 1 > longest:
                    continue
                if is_max_context(windows, number, first):
                    spans.append(Span(first, last, logits[start][0], logits[end][1]))
    assert null is not None
    return Ranking(sorted(spans, key=lambda span: -(span.start_logit + span.end_logit)), null)


def final_text(tokenizer: Tokenizer, passage: Passage, first: int, last: int) -> str:
    """Return the text of a span of tokens: within its words, what is left when both are compared without spaces."""
    words = " ".join(passage.words[passage.word_of_token[first] : passage.word_of_token[last] + 1])
    predicted = " ".join(passage.tokens[first : last + 1]).replace(" ##", "").replace("##", "")
    split = " ".join(basic_tokens(tokenizer, words))
    start = split.find(predicted)
    if start < 0:
        return words
    end = start + len(predicted) - 1
    ours = [index for index, character in enumerate(split) if character != " "]
    theirs = [index for index, character in enumerate(words) if character != " "]
    if len(ours) != len(theirs):
        return words
    place = dict(zip(ours, theirs, strict=True))
    return words[place[start] : place[end] + 1]


def basic_tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    """Split at spaces and punctuation, lower-cased without accents, as before WordPiece."""
    backend = tokenizer._backend
    return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]
