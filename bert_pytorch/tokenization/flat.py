"""Many texts into one array of ids: the slow reference, through Hugging Face's `tokenizers`."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tokenizers

BATCH_CHARACTERS = 1 << 18
"""Texts are handed over in pieces of about this size: the library keeps ≈ 100 bytes a token until a piece is done."""


class FlatTokens(NamedTuple):
    """Tokens of n texts in one array."""

    ids: np.ndarray
    """int32 (T,)."""
    offsets: np.ndarray
    """int64 (n + 1,), text i is `ids[offsets[i] : offsets[i + 1]]`."""


def encode_flat_reference(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> FlatTokens:
    """Encode texts without special tokens; the names of special tokens in them are ordinary text.

    A lone surrogate, which no UTF-8 text holds, counts as U+FFFD, as a lenient decoder would have read it.

    Args:
        backend: its `encode_special_tokens` is set to True and stays so.
        texts: any number of texts, each encoded by itself.
    """
    backend.encode_special_tokens = True
    arrays, counts = [], [0]
    for batch in batches(texts, BATCH_CHARACTERS):
        try:
            encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
        except TypeError:  # what the library makes of a surrogate
            encodings = backend.encode_batch_fast(list(map(without_surrogates, batch)), add_special_tokens=False)
        lists = [encoding.ids for encoding in encodings]
        counts += map(len, lists)
        arrays.append(np.fromiter(itertools.chain.from_iterable(lists), np.int32))
    ids = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
    return FlatTokens(ids, np.cumsum(counts, dtype=np.int64))


def batches(texts: Sequence[str], characters: int) -> Iterator[Sequence[str]]:
    """Yield runs of texts of about so many characters; a longer text is in a run of its own."""
    sizes = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    cuts = np.unique(np.searchsorted(sizes, np.arange(characters, sizes[-1] if len(texts) else 0, characters)))
    edges = [0, *(cuts[cuts > 0]).tolist(), len(texts)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            yield texts[start:stop]


def without_surrogates(text: str) -> str:
    """Return text that can be written: lone surrogates are U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
