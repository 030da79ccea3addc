"""A small honest vocabulary."""

import string

from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary

WORDS = ["the", "capital", "of", "france", "is", "paris", "rome", "Paris", "a", "##s", "##ing", "."]


def small_vocabulary(lowercase: bool = True) -> Vocabulary:
    """Make special tokens, letters and a few words: 61 to 87 tokens, no multiple of 8."""
    letters = string.ascii_lowercase if lowercase else string.ascii_letters
    words = [word for word in WORDS if not lowercase or word == word.lower()]
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *words]
    return Vocabulary(tuple(dict.fromkeys(tokens)), lowercase)
