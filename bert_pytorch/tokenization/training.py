"""Training a WordPiece vocabulary: Hugging Face's trainer, made to give the same bytes every time.

The trainer numbers characters that continue a word (`##a`) in the order of a hash table, which differs from run to run,
and breaks ties between merges by those numbers.  Naming the whole alphabet beforehand, sorted, leaves it no choice.
"""

import logging
from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_pytorch.errors import InputError
from bert_pytorch.records import SPECIAL_TOKENS, UNKNOWN_TOKEN, Vocabulary
from bert_pytorch.tokenization.tokenizer import Tokenizer, normalizer

logger = logging.getLogger(__name__)

MIN_FREQUENCY = 2
ALPHABET_LIMIT = 1000
"""Characters kept, by frequency (the limit of `tokenizers`' BERT trainer); words with rarer ones become [UNK]."""


def train_wordpiece(texts: Iterable[str], size: int, lowercase: bool) -> Tokenizer:
    """Train a vocabulary of `size` tokens, or of fewer where the text does not fill it (a warning says so).

    The special tokens come first, `[PAD]` with id 0, then the alphabet, then merges by frequency.

    Args:
        texts: read once and held in memory.
        size: tokens wanted, special ones included.
        lowercase: whether the tokenizer lower-cases text and strips accents.

    Raises:
        InputError: if there is no text, or `size` has no room for the special tokens and an alphabet.
    """
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN_TOKEN))
    backend.normalizer = normalizer(lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = list(texts)
    words = _count_words(backend, texts)
    if not words:
        raise InputError("no words to train a vocabulary on: the text is empty. Give other text.")
    first = [*SPECIAL_TOKENS, *_alphabet(words, size - len(SPECIAL_TOKENS))]
    if len(first) == len(SPECIAL_TOKENS):
        raise InputError(f"a vocabulary of {size} tokens has no room for an alphabet. Ask for a larger --vocab_size.")
    initial = [token for token in first if len(token) == 1]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=first,
        initial_alphabet=initial,
        limit_alphabet=len(initial),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokens = [token for token, _ in sorted(backend.get_vocab().items(), key=lambda item: item[1])]
    if len(tokens) < size:
        logger.warning(
            "vocabulary: the text holds only %d tokens of the %d asked for; going on with those.", len(tokens), size
        )
    return Tokenizer(Vocabulary(tuple(tokens), lowercase))


def _count_words(backend: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    words: Counter[str] = Counter()
    for text in texts:
        pieces = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
        words.update([word for word, _ in pieces])
    return words


def _alphabet(words: Counter[str], room: int) -> list[str]:
    """Choose the most frequent characters whose forms (`a`, `##a`) fit into `room` tokens; sorted, bare forms first."""
    counts: Counter[str] = Counter()
    continuing: set[str] = set()
    for word, count in words.items():
        for character in word:
            counts[character] += count
        continuing.update(word[1:])
    bare: list[str] = []
    for character, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:ALPHABET_LIMIT]:
        room -= 1 + (character in continuing)
        if room < 0:
            break
        bare.append(character)
    return [*sorted(bare), *(f"##{character}" for character in sorted(bare) if character in continuing)]
