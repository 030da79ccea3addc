"""How a vocabulary is used by a text or a set: unknown tokens, and tokens that never occur."""

import re
from typing import Any

import numpy as np

from bert_pytorch.records import Vocabulary

_FILLERS = re.compile(r"\[unused\d+\]|madeupword\d+")
"""Tokens that fill up published vocabularies and stand in no text."""


def token_use(counts: np.ndarray, vocabulary: Vocabulary, sha256: str) -> dict[str, Any]:
    """Describe how often tokens occur.

    Args:
        counts: int64 (V,), occurrences of each id; special tokens count as text only where they are [UNK].
        vocabulary: of V tokens.
        sha256: of the vocabulary.
    """
    special = vocabulary.special
    structural = {special.pad, special.cls, special.sep, special.mask}
    text = np.array([token not in structural for token in vocabulary.tokens], bool)
    words = np.array([token not in special and not _FILLERS.fullmatch(token) for token in vocabulary.tokens], bool)
    total = int(counts[text].sum())
    unknown = int(counts[vocabulary.id_of(special.unknown)])
    never = int((words & (counts == 0)).sum())
    return {
        "sha256": sha256,
        "size": len(vocabulary.tokens),
        "lowercase": vocabulary.lowercase,
        "unknown_tokens": unknown,
        "unknown_rate": round(unknown / total, 8) if total else 0.0,
        "never_used": never,
        "never_used_share": round(never / int(words.sum()), 6) if words.any() else 0.0,
    }
