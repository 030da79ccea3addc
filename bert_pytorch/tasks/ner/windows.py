"""Words as tokens; long sentences as windows that overlap, so that each word is tagged once, seen among others."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bert_pytorch.records import Vocabulary
from bert_pytorch.tasks.features import Features
from bert_pytorch.tokenization.tokenizer import Tokenizer


class Window(NamedTuple):
    """Tokens of a sentence that a model sees together, and those of them that it is asked about."""

    start: int
    stop: int
    asked_start: int
    asked_stop: int


def windows_of(length: int, most: int) -> Iterator[Window]:
    """Yield windows over `length` tokens: one where they fit, else as few as leave a quarter of a window as context.

    All windows are full and equally far apart; where two overlap, each is asked about its half.

    Args:
        length: of the sentence.
        most: tokens of a window.
    """
    spare = length - most
    if spare <= 0:
        yield Window(0, length, 0, length)
        return
    step = max(most - 2 * (most // 4), 1)
    count = 1 + -(-spare // step)
    starts = [spare * number // (count - 1) for number in range(count)]
    edges = [0, *((left + most + right) // 2 for left, right in itertools.pairwise(starts)), length]
    for start, (asked_start, asked_stop) in zip(starts, itertools.pairwise(edges), strict=True):
        yield Window(start, start + most, asked_start, asked_stop)


def window_sentences(words: Sequence[str], starts: Sequence[int], tokenizer: Tokenizer, max_length: int) -> Features:
    """Make the sequences of sentences, in order; a sentence without any token has none.

    Args:
        words: N of them, each tokenized by itself.
        starts: n + 1 of them; sentence i has the words from `starts[i]` to `starts[i + 1]`.
        tokenizer: the model's.
        max_length: tokens of a sequence at most, `[CLS]` and `[SEP]` among them; 3 or more.

    Returns:
        Features without labels.  `extra["words"]`, int64 (T,), is the word that is tagged at each token, its first, or
        -1: rising, each word once; one that the tokenizer turns to nothing (a control character) nowhere.
    """
    vocabulary = tokenizer.vocabulary
    tokens = tokenizer.encode_flat(_spelled(words, starts, vocabulary))
    sizes = np.diff(tokens.offsets)
    tagged = np.full(len(tokens.ids), -1, np.int64)  # word that begins at each token
    tagged[tokens.offsets[:-1][sizes > 0]] = np.flatnonzero(sizes)
    begins, ends = np.array([vocabulary.cls_id], np.int32), np.array([vocabulary.sep_id], np.int32)
    nothing = np.array([-1])
    ids: list[np.ndarray] = [np.empty(0, np.int32)]
    asked: list[np.ndarray] = [np.empty(0, np.int64)]
    lengths, sentences = [0], []
    edges = tokens.offsets[np.asarray(starts)].tolist()
    for sentence, (first, last) in enumerate(itertools.pairwise(edges)):
        if first == last:
            continue
        for window in windows_of(last - first, max_length - 2):
            seen = slice(first + window.start, first + window.stop)
            places = np.arange(window.start, window.stop)
            is_asked = (places >= window.asked_start) & (places < window.asked_stop)
            ids += begins, tokens.ids[seen], ends
            asked += nothing, np.where(is_asked, tagged[seen], -1), nothing
            lengths.append(window.stop - window.start + 2)
            sentences.append(sentence)
    return Features(
        input_ids=np.concatenate(ids),
        segment_b_starts=np.array(lengths[1:], np.int32),
        cu_seqlens=np.cumsum(lengths, dtype=np.int64),
        examples=np.array(sentences, np.int32),
        labels=None,
        extra={"words": np.concatenate(asked)},
    )


def _spelled(words: Sequence[str], starts: Sequence[int], vocabulary: Vocabulary) -> Sequence[str]:
    """Spell words so that each by itself has the tokens that it has in a sentence: byte-level BPE takes in a space."""
    if vocabulary.kind == "wordpiece" or vocabulary.add_prefix_space:
        return words
    first = set(starts)
    return [word if index in first else f" {word}" for index, word in enumerate(words)]
