"""From the tokens of documents to sequences: `[CLS] tokens [SEP]`, nothing lost and nothing doubled."""

from typing import NamedTuple

import numpy as np

from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.flat import FlatTokens

SPECIAL = 2
"""[CLS] and [SEP] of a sequence."""


class FlatSequences(NamedTuple):
    """Sequences one after another, without padding."""

    tokens: np.ndarray
    """(T,), of `token_dtype`, [CLS] and [SEP] included."""
    lengths: np.ndarray
    """uint16 (S,), tokens of each."""


def token_dtype(vocabulary: Vocabulary) -> np.dtype:
    """Return what holds any id: two bytes up to 65,536 tokens, else four."""
    return np.dtype("<u2" if len(vocabulary.tokens) <= 1 << 16 else "<i4")


def cut_documents(documents: FlatTokens, longest: int, vocabulary: Vocabulary) -> FlatSequences:
    """Cut each document into as few consecutive pieces as fit, of lengths that differ by one token at most.

    A document of 130 tokens becomes 65 and 65 rather than 126 and 4: a short rest teaches next to nothing, as its
    tokens have no context.  One without tokens becomes nothing.

    Args:
        documents: tokens without special ones.
        longest: tokens of a sequence at most, [CLS] and [SEP] included.
        vocabulary: of the tokens.
    """
    counts = np.diff(documents.offsets)
    pieces = -(-counts // (longest - SPECIAL))  # (documents,)
    owners = np.repeat(np.arange(len(counts)), pieces)  # (S,)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    shortest, longer = np.divmod(counts, np.maximum(pieces, 1))
    lengths = shortest[owners] + (number < longer[owners]) + SPECIAL
    ends = np.cumsum(lengths)
    tokens = np.empty(len(documents.ids) + SPECIAL * len(lengths), token_dtype(vocabulary))
    is_text = np.ones(len(tokens), bool)
    is_text[ends - lengths] = is_text[ends - 1] = False
    tokens[ends - lengths], tokens[ends - 1] = vocabulary.cls_id, vocabulary.sep_id
    tokens[is_text] = documents.ids
    return FlatSequences(tokens, lengths.astype(np.uint16))
