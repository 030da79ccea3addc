"""Passages cut into windows that overlap, as Google's run_squad does (Devlin et al. 2019).

A window is `[CLS] question [SEP] part of the passage [SEP]`.  All of it is computed for thousands of questions at once;
`tests/support/google_squad.py` is the definition, a question at a time.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.records import Vocabulary
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.squad.files import SquadSet
from bert_pytorch.tokenization.flat import FlatTokens
from bert_pytorch.tokenization.placed import PlacedTokens
from bert_pytorch.tokenization.tokenizer import Tokenizer

SPECIAL_TOKENS = 3
"""`[CLS]` and twice `[SEP]`."""


class WindowConfig(Settings):
    """How questions and passages are cut."""

    max_seq_length: int = Field(384, ge=5)
    """Tokens of a window at most: question, part of the passage and three special tokens."""
    doc_stride: int = Field(128, ge=1)
    """Tokens from one window's start in the passage to the next one's, as NVIDIA and Google count (Hugging Face's
    stride is the overlap).  Never more than a window holds, so that no token is left out."""
    max_query_length: int = Field(64, ge=1)
    """Tokens of a question at most; the rest is cut off."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message where a question could fill the window."""
        yield from super().combination_problems()
        if self.max_query_length + SPECIAL_TOKENS >= self.max_seq_length:
            yield (
                f"--max_query_length {self.max_query_length} with {SPECIAL_TOKENS} special tokens leaves nothing of "
                f"--max_seq_length {self.max_seq_length} for the passage: give at most "
                f"--max_query_length {self.max_seq_length - SPECIAL_TOKENS - 1}, or longer windows."
            )


class TokenizedQuestions(NamedTuple):
    """q questions about p passages, as tokens."""

    queries: FlatTokens
    """Of the q questions, whole."""
    passages: PlacedTokens
    """Of the p passages."""
    passage_of: np.ndarray
    """int64 (q,)."""


class Windows(NamedTuple):
    """n windows; those of one question are neighbours, in the order of the passage."""

    questions: np.ndarray
    """int64 (n,), the question of each."""
    query_lengths: np.ndarray
    """int64 (n,), tokens of the question, cut."""
    starts: np.ndarray
    """int64 (n,), first token within the passage."""
    lengths: np.ndarray
    """int64 (n,), tokens of the passage in the window; 0 only where the passage has none."""

    @property
    def passage_places(self) -> np.ndarray:
        """Where the part of the passage begins in each window, which is where segment B does: int64 (n,)."""
        return self.query_lengths + 2

    @property
    def sizes(self) -> np.ndarray:
        """Tokens of each window: int64 (n,)."""
        return self.query_lengths + self.lengths + SPECIAL_TOKENS


def tokenized(squad: SquadSet, tokenizer: Tokenizer) -> TokenizedQuestions:
    """Tokenize a set of questions, each passage once."""
    return TokenizedQuestions(
        tokenizer.encode_flat([question.text for question in squad.questions]),
        tokenizer.encode_placed(squad.passages),
        np.array([question.passage for question in squad.questions], np.int64),
    )


def plan_windows(tokens: TokenizedQuestions, config: WindowConfig) -> Windows:
    """Cut every passage, anew for each question, which decides how much room there is.

    The first window that reaches the end of the passage is the last one.
    """
    queries = np.minimum(np.diff(tokens.queries.offsets), config.max_query_length)
    passages = np.diff(tokens.passages.offsets)[tokens.passage_of]
    room = config.max_seq_length - queries - SPECIAL_TOKENS
    step = np.minimum(config.doc_stride, room)
    counts = 1 - np.minimum((room - passages) // step, 0)  # floor of a negative: the rest in steps, rounded up
    questions = np.repeat(np.arange(len(queries)), counts)
    numbers = np.arange(len(questions)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = numbers * step[questions]
    lengths = np.minimum(room[questions], passages[questions] - starts)
    return Windows(questions, queries[questions], starts, lengths)


def window_features(
    tokens: TokenizedQuestions, windows: Windows, vocabulary: Vocabulary, labels: np.ndarray | None = None
) -> Features:
    """Return what a model reads of the windows.

    Args:
        tokens: of the questions.
        windows: n windows of them.
        vocabulary: of the tokens.
        labels: int64 (n, 2).
    """
    return Features(
        input_ids=_window_ids(tokens, windows, vocabulary),
        segment_b_starts=windows.passage_places.astype(np.int32),
        cu_seqlens=np.concatenate([[0], np.cumsum(windows.sizes)]),
        examples=windows.questions.astype(np.int32),
        labels=labels,
    )


def _window_ids(tokens: TokenizedQuestions, windows: Windows, vocabulary: Vocabulary) -> np.ndarray:
    queries, passages = tokens.queries, tokens.passages
    pool = np.concatenate([np.array([vocabulary.cls_id, vocabulary.sep_id], np.int32), queries.ids, passages.ids])
    first_of_query = 2 + queries.offsets[windows.questions]
    first_of_passage = 2 + len(queries.ids) + passages.offsets[tokens.passage_of[windows.questions]]
    cls, sep, one = np.zeros_like(windows.starts), np.ones_like(windows.starts), np.ones_like(windows.starts)
    places = np.stack([cls, first_of_query, sep, first_of_passage + windows.starts, sep], axis=1).ravel()
    sizes = np.stack([one, windows.query_lengths, one, windows.lengths, one], axis=1).ravel()
    return pool[_ranges(places, sizes)]


def is_max_context(windows: Windows) -> np.ndarray:
    """Tell where each token of a passage has the most context around it: bool, `windows.lengths` of each, end to end.

    A token stands in several windows and counts in one: where the lesser of its neighbours left and right are most,
    among equals in the longest window, then in the first (google-research/bert, `_check_is_max_context`).
    """
    lengths = windows.lengths
    owner = np.repeat(np.arange(len(lengths)), lengths)
    left = _ranges(np.zeros_like(lengths), lengths)
    right = lengths[owner] - 1 - left
    scores = np.minimum(left, right) + 0.01 * lengths[owner]
    tokens_of = np.zeros(int(windows.questions.max(initial=-1)) + 1, np.int64)
    np.maximum.at(tokens_of, windows.questions, windows.starts + lengths)
    token = (np.cumsum(tokens_of) - tokens_of)[windows.questions[owner]] + windows.starts[owner] + left
    best = np.full(int(tokens_of.sum()), -np.inf)
    np.maximum.at(best, token, scores)
    first = np.full(len(best), len(lengths))
    candidates = scores == best[token]
    np.minimum.at(first, token[candidates], owner[candidates])
    return first[token] == owner


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return `starts[i], starts[i] + 1, …`, `lengths[i]` of each, end to end."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)
