"""Small honest vocabularies of both kinds."""

import functools
import string

from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary
from bert_pytorch.tokenization.training import train_byte_bpe

WORDS = ["the", "capital", "of", "france", "is", "paris", "rome", "Paris", "a", "##s", "##ing", "."]


def small_vocabulary(lowercase: bool = True) -> Vocabulary:
    """Make special tokens, letters and a few words: 61 to 87 tokens, no multiple of 8."""
    letters = string.ascii_lowercase if lowercase else string.ascii_letters
    words = [word for word in WORDS if not lowercase or word == word.lower()]
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *words]
    return Vocabulary(tuple(dict.fromkeys(tokens)), lowercase)


@functools.cache
def small_byte_bpe(lowercase: bool = False, add_prefix_space: bool = True) -> Vocabulary:
    """Make byte-level BPE of 266 tokens: special ones, the bytes and 5 merges, among them `Ġthe` and `ing`."""
    text = ["the king is singing of the thing", "the ring"]
    return train_byte_bpe(text, 300, lowercase, add_prefix_space).vocabulary
