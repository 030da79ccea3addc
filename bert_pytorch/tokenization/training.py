"""Training a vocabulary, WordPiece or byte-level BPE: Hugging Face's trainers, made to give the same bytes every time.

WordPiece's numbers characters that continue a word (`##a`) in the order of a hash table, which differs from run to run,
and breaks ties between merges by those numbers.  Naming the whole alphabet beforehand, sorted, leaves it no choice.
Byte-level BPE's alphabet is always the 256 bytes.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_pytorch.errors import InputError
from bert_pytorch.records import BYTE_BPE_SPECIALS, SPECIAL_TOKENS, UNKNOWN_TOKEN, Vocabulary
from bert_pytorch.tokenization.tokenizer import Tokenizer, normalizer, put_byte_level
from bert_pytorch.vocabulary import byte_alphabet, parse_merges

logger = logging.getLogger(__name__)

MIN_FREQUENCY = 2
ALPHABET_LIMIT = 1000
"""Characters kept, by frequency (the limit of `tokenizers`' BERT trainer); words with rarer ones become [UNK]."""

_BYTE_BPE_FIRST = tuple(BYTE_BPE_SPECIALS._asdict()[role] for role in ("cls", "pad", "sep", "unknown", "mask"))
SMALLEST_BYTE_BPE = len(_BYTE_BPE_FIRST) + 256
"""Tokens that every byte-level BPE vocabulary has: RoBERTa's special ones, in its order, and the bytes."""


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
    tokens = _learned_wordpieces(texts, size, lowercase)
    _tell_if_short(len(tokens), size)
    return Tokenizer(Vocabulary(tokens, lowercase))


def extend_wordpiece(texts: Iterable[str], vocabulary: Vocabulary, size: int) -> Tokenizer:
    """Append what WordPiece learns from other text to a vocabulary, in the order in which it is learned.

    Ids that are there keep their meaning, so that a model's embeddings stay good for them.

    Args:
        texts: read once and held in memory.
        vocabulary: WordPiece, of fewer than `size` tokens.
        size: tokens wanted, those of `vocabulary` included; fewer where the text has no more to teach (a warning).

    Raises:
        InputError: if there is no text.
    """
    known = set(vocabulary.tokens)
    learned = [token for token in _learned_wordpieces(texts, size, vocabulary.lowercase) if token not in known]
    tokens = (*vocabulary.tokens, *learned[: size - len(known)])
    _tell_if_short(len(tokens), size)
    return Tokenizer(vocabulary._replace(tokens=tokens))


def _learned_wordpieces(texts: Iterable[str], size: int, lowercase: bool) -> tuple[str, ...]:
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
    return _tokens(backend)


def train_byte_bpe(texts: Iterable[str], size: int, lowercase: bool, add_prefix_space: bool = True) -> Tokenizer:
    """Train byte-level BPE of `size` tokens, or of fewer where the text does not fill it (a warning says so).

    `<s> <pad> </s> <unk> <mask>` are ids 0 to 4, then come the 256 bytes, then merges by frequency.

    Args:
        texts: read once; counts of distinct words are held in memory.
        size: tokens wanted, special ones included.
        lowercase: whether the tokenizer lower-cases text.
        add_prefix_space: whether the first word of a text is spelled as inside one, with a space before it.

    Raises:
        InputError: if there is no text, or `size` has no room for the special tokens and the bytes.
    """
    if size < SMALLEST_BYTE_BPE:
        raise InputError(
            f"a byte-level BPE vocabulary of {size} tokens has no room for 5 special tokens and 256 bytes. Ask for a "
            f"larger --vocab_size, at least {SMALLEST_BYTE_BPE}."
        )
    backend = tokenizers.Tokenizer(models.BPE())
    put_byte_level(backend, lowercase, add_prefix_space)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(_BYTE_BPE_FIRST),
        initial_alphabet=list(byte_alphabet()),
        show_progress=False,
    )
    seen = 0

    def words() -> Iterator[str]:
        nonlocal seen
        for text in texts:
            seen += bool(text.strip())
            yield text

    backend.train_from_iterator(words(), trainer)
    if not seen:
        raise InputError("no words to train a vocabulary on: the text is empty. Give other text.")
    tokens = _tokens(backend)
    _tell_if_short(len(tokens), size)
    merges = parse_merges(json.loads(backend.to_str())["model"]["merges"], tokens)
    return Tokenizer(Vocabulary(tokens, lowercase, merges, add_prefix_space))


def _tell_if_short(found: int, size: int) -> None:
    if found < size:
        logger.warning(
            "vocabulary: the text holds only %d tokens of the %d asked for; going on with those.", found, size
        )


def _tokens(backend: tokenizers.Tokenizer) -> tuple[str, ...]:
    ids = backend.get_vocab()
    return tuple(sorted(ids, key=ids.__getitem__))


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
