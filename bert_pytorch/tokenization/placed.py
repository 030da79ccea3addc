"""Tokens that know where in their text they stand: for answers, which are given back as they are written."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

from bert_pytorch.tokenization.flat import BATCH_CHARACTERS, batches, without_surrogates


class PlacedTokens(NamedTuple):
    """Tokens of n texts in one array, and the characters that they stand for."""

    ids: np.ndarray
    """int32 (T,)."""
    offsets: np.ndarray
    """int64 (n + 1,), text i is `ids[offsets[i] : offsets[i + 1]]`."""
    starts: np.ndarray
    """int32 (T,), first character (code point) of each token in its text; never falls within a text."""
    ends: np.ndarray
    """int32 (T,), one past its last; never falls within a text."""


def encode_placed(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> PlacedTokens:
    """Encode texts without special tokens; the names of special tokens in them are ordinary text.

    Whitespace around a token (byte-level BPE begins words with it) does not belong to it, a combining mark that the
    vocabulary does without (of `e` and U+0301 it sees only `e`) does.  A lone surrogate counts as U+FFFD.

    Args:
        backend: its `encode_special_tokens` is set to True and stays so.
        texts: any number of texts, each encoded by itself.
    """
    backend.encode_special_tokens = True
    ids, counts = [np.empty(0, np.int32)], [0]
    starts, ends = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for batch in batches(texts, BATCH_CHARACTERS):
        whole = list(map(without_surrogates, batch))
        for text, encoding in zip(whole, backend.encode_batch(whole, add_special_tokens=False), strict=True):
            counts.append(len(encoding.ids))
            ids.append(np.array(encoding.ids, np.int32))
            places = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            begin, end = _trimmed(text, places[:, 0], places[:, 1])
            starts.append(begin)
            ends.append(end)
    return PlacedTokens(
        np.concatenate(ids), np.cumsum(counts, dtype=np.int64), np.concatenate(starts), np.concatenate(ends)
    )


def _trimmed(text: str, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take whitespace off the tokens of one text, and the marks after them in: int32 (t,), starts and ends."""
    if not len(starts):
        return starts, ends
    is_space = np.fromiter(map(str.isspace, text), bool, len(text))
    starts = np.minimum(_next_without(is_space)[starts], ends)
    ends = np.maximum(len(text) - _next_without(is_space[::-1])[len(text) - ends], starts)
    if not text.isascii():
        is_mark = np.fromiter((unicodedata.category(character) == "Mn" for character in text), bool, len(text))
        following = np.append(starts[1:], np.int32(len(text)))
        ends = np.maximum(ends, np.minimum(_next_without(is_mark)[ends], following))
    return starts, ends


def _next_without(flags: np.ndarray) -> np.ndarray:
    """Return for each place, and the end, the first place from there on that has no flag: int32 (n + 1,)."""
    places = np.arange(len(flags) + 1, dtype=np.int32)
    places[:-1][flags] = len(flags)
    return np.minimum.accumulate(places[::-1])[::-1]
