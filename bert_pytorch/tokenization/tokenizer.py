"""WordPiece as BERT defines it (Devlin et al. 2019), through Hugging Face's `tokenizers`.

Corpora are encoded with `encode_flat`: many texts into one array and offsets, no Python object per token.  There,
`[MASK]` standing in a text is five characters of prose; only `encode_with_masks` reads it as the token.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_pytorch.errors import MissingDependencyError
from bert_pytorch.files import atomic_write_json, atomic_write_text
from bert_pytorch.records import CLS_TOKEN, SEP_TOKEN, SPECIAL_TOKENS, UNKNOWN_TOKEN, Vocabulary
from bert_pytorch.tokenization.fast import FastEncoder
from bert_pytorch.tokenization.flat import FlatTokens, encode_flat_reference
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_TEXT, read_vocabulary, vocabulary_sha256, vocabulary_text


class Tokenizer:
    """Turns text into ids of one vocabulary.

    Args:
        vocabulary: its tokens and casing.
        fast: whether `encode_flat` goes through tokie, to the same ids: None where it can, False never, True always.
    """

    def __init__(self, vocabulary: Vocabulary, fast: bool | None = None) -> None:
        self.vocabulary = vocabulary
        self._fast = fast
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
        if self._fast_encoder is not None:
            return self._fast_encoder.encode_flat(texts)
        return encode_flat_reference(self._backend, texts)

    @cached_property
    def _fast_encoder(self) -> FastEncoder | None:
        if self._fast is False:
            return None
        encoder = FastEncoder.from_tokenizer_json(self._backend.to_str(), "wordpiece", self._backend)
        if self._fast and encoder is None:
            raise MissingDependencyError("tokie was asked for and cannot be used; the log says why.")
        return encoder

    def encode_with_masks(self, text: str) -> list[int]:
        """Encode one text as `[CLS] … [SEP]`, in which special tokens such as `[MASK]` keep their meaning."""
        self._backend.encode_special_tokens = False
        return list(self._backend.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Join tokens to text again, special tokens left out; spaces are as WordPiece's decoder guesses them."""
        return str(self._backend.decode(list(ids)))

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
