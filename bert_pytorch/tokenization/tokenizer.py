"""WordPiece as BERT defines it (Devlin et al. 2019), through Hugging Face's `tokenizers`.

Corpora are encoded with `encode_flat`: many texts into one array and offsets, no Python object per token.  There,
`[MASK]` standing in a text is five characters of prose; only `encode_with_masks` reads it as the token.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_pytorch.files import atomic_write_json, atomic_write_text
from bert_pytorch.records import CLS_TOKEN, SEP_TOKEN, SPECIAL_TOKENS, UNKNOWN_TOKEN, Vocabulary
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_TEXT, read_vocabulary, vocabulary_sha256, vocabulary_text

BATCH_CHARACTERS = 1 << 18
"""Texts are handed over in pieces of about this size: the library keeps ≈ 100 bytes a token until a piece is done."""


class FlatTokens(NamedTuple):
    """Tokens of n texts in one array."""

    ids: np.ndarray
    """int32 (T,)."""
    offsets: np.ndarray
    """int64 (n + 1,), text i is `ids[offsets[i] : offsets[i + 1]]`."""


class Tokenizer:
    """Turns text into ids of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._backend = _backend(vocabulary)

    @property
    def sha256(self) -> str:
        """SHA-256 of the vocabulary's `vocab.txt`."""
        return vocabulary_sha256(self.vocabulary)

    def encode_flat(self, texts: Sequence[str]) -> FlatTokens:
        """Encode texts without special tokens; the names of special tokens in them are ordinary text.

        Args:
            texts: any number of texts, each encoded by itself.
        """
        self._backend.encode_special_tokens = True
        arrays, counts = [], [0]
        for batch in _batches(texts):
            encodings = self._backend.encode_batch_fast(batch, add_special_tokens=False)
            lists = [encoding.ids for encoding in encodings]
            counts += map(len, lists)
            arrays.append(np.fromiter(itertools.chain.from_iterable(lists), np.int32))
        ids = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
        return FlatTokens(ids, np.cumsum(counts, dtype=np.int64))

    def encode_with_masks(self, text: str) -> list[int]:
        """Encode one text as `[CLS] … [SEP]`, in which special tokens such as `[MASK]` keep their meaning."""
        self._backend.encode_special_tokens = False
        return list(self._backend.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Join tokens to text again, special tokens left out; spaces are as WordPiece's decoder guesses them."""
        return str(self._backend.decode(list(ids)))

    def piece(self, token: str) -> tuple[str, bool]:
        """Return the text of one token, and whether it joins the word before it."""
        return token.removeprefix("##"), token.startswith("##")

    def save(self, folder: Path) -> None:
        """Write `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`, which `transformers` opens as they are."""
        self._backend.encode_special_tokens = False
        atomic_write_text(folder / VOCABULARY_TEXT, vocabulary_text(self.vocabulary))
        atomic_write_text(folder / TOKENIZER_JSON, self._backend.to_str(pretty=True) + "\n")
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": self.vocabulary.lowercase}
        atomic_write_json(folder / "tokenizer_config.json", config)


def tokenizer_from_vocabulary(vocabulary: Vocabulary) -> Tokenizer:
    """Make the tokenizer that a vocabulary and its casing determine; a checkpoint stores nothing more."""
    return Tokenizer(vocabulary)


def load_tokenizer(path: Path, lowercase: bool | None = None) -> Tokenizer:
    """Load a tokenizer from a folder (`tokenizer.json`, else `vocab.txt`) or from one such file.

    Args:
        path: the folder or file.
        lowercase: casing where it was said explicitly; None takes the file's own, and lowercase for a `vocab.txt`.

    Raises:
        InputError: if there is none, it is damaged, or `lowercase` contradicts it.
    """
    return Tokenizer(read_vocabulary(path, lowercase))


def normalizer(lowercase: bool) -> normalizers.Normalizer:
    """Return BERT's text normalisation: control characters out, CJK spaced; lower case without accents if asked."""
    return normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )


def _backend(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=UNKNOWN_TOKEN, max_input_chars_per_word=100))
    backend.normalizer = normalizer(vocabulary.lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{CLS_TOKEN} $A {SEP_TOKEN}",
        pair=f"{CLS_TOKEN} $A {SEP_TOKEN} $B:1 {SEP_TOKEN}:1",
        special_tokens=[(token, ids[token]) for token in (CLS_TOKEN, SEP_TOKEN)],
    )
    return backend


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    sizes = np.cumsum([len(text) for text in texts], dtype=np.int64)
    cuts = np.unique(
        np.searchsorted(sizes, np.arange(BATCH_CHARACTERS, sizes[-1] if len(texts) else 0, BATCH_CHARACTERS))
    )
    edges = [0, *(cuts[cuts > 0]).tolist(), len(texts)]
    return [texts[start:stop] for start, stop in itertools.pairwise(edges) if stop > start]
