"""WordPiece (Devlin et al. 2019) and byte-level BPE (Radford et al. 2019), through Hugging Face's `tokenizers`.

Corpora are encoded with `encode_flat`: many texts into one array and offsets, no Python object per token.  There,
`[MASK]` standing in a text is six characters of prose; only `encode_with_masks` reads it as the token.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_pytorch.errors import MissingDependencyError
from bert_pytorch.files import atomic_write_json, atomic_write_text
from bert_pytorch.records import Vocabulary
from bert_pytorch.tokenization.fast import FastEncoder
from bert_pytorch.tokenization.flat import FlatTokens, encode_flat_reference
from bert_pytorch.tokenization.placed import PlacedTokens, encode_placed
from bert_pytorch.vocabulary import (
    CONTINUATION,
    MERGES_TEXT,
    TOKENIZER_JSON,
    VOCABULARY_JSON,
    VOCABULARY_TEXT,
    merges_text,
    read_vocabulary,
    vocabulary_sha256,
    vocabulary_text,
)

CHOICE = "BERT_PYTORCH_TOKENIZER"
"""Environment variable: `reference` keeps tokie out where a constructor does not say."""


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
        """The vocabulary's SHA-256 (`vocabulary_sha256`)."""
        return vocabulary_sha256(self.vocabulary)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides how it encodes: tokens, casing, normalisation, merges."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    def encode_flat(self, texts: Sequence[str]) -> FlatTokens:
        """Encode texts without special tokens; the names of special tokens in them are ordinary text.

        Args:
            texts: any number of texts, each encoded by itself.
        """
        if self._fast_encoder is not None:
            return self._fast_encoder.encode_flat(texts)
        return encode_flat_reference(self._backend, texts)

    def encode_placed(self, texts: Sequence[str]) -> PlacedTokens:
        """Encode as `encode_flat` does, and say which characters of its text each token stands for."""
        return encode_placed(self._backend, texts)

    @cached_property
    def _fast_encoder(self) -> FastEncoder | None:
        if self._fast is False or (self._fast is None and os.environ.get(CHOICE) == "reference"):
            return None
        encoder = FastEncoder.from_tokenizer_json(self._backend.to_str(), self.vocabulary.kind, self._backend)
        if self._fast and encoder is None:
            raise MissingDependencyError("tokie was asked for and cannot be used; the log says why.")
        return encoder

    def encode_with_masks(self, text: str) -> list[int]:
        """Encode one text as `[CLS] … [SEP]`, in which special tokens such as `[MASK]` keep their meaning."""
        self._backend.encode_special_tokens = False
        return list(self._backend.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Join tokens to text again, special tokens left out.

        Byte-level BPE gives the text back as it was, less the prefix space and capitals that its vocabulary does
        without; for WordPiece, spaces are as its decoder guesses them.
        """
        text = str(self._backend.decode(list(ids)))
        return text.removeprefix(" ") if self.vocabulary.add_prefix_space else text

    def piece(self, token: str) -> tuple[str, bool]:
        """Return the text of one token, and whether it joins the word before it."""
        if self.vocabulary.merges is None:
            return token.removeprefix(CONTINUATION), token.startswith(CONTINUATION)
        text = str(self._backend.decoder.decode([token]))
        return text.removeprefix(" ") or text, not text.startswith(" ") and token not in self.vocabulary.special

    def save(self, folder: Path) -> None:
        """Write the files that `transformers` opens as they are.

        `vocab.txt`, `tokenizer.json` and `tokenizer_config.json`; for byte-level BPE `vocab.json` and `merges.txt` too,
        RoBERTa's files, which a slow tokenizer needs.
        """
        self._backend.encode_special_tokens = False
        vocabulary = self.vocabulary
        atomic_write_text(folder / VOCABULARY_TEXT, vocabulary_text(vocabulary))
        if vocabulary.merges is not None:
            ids = {token: index for index, token in enumerate(vocabulary.tokens)}
            atomic_write_text(folder / VOCABULARY_JSON, json.dumps(ids, ensure_ascii=False) + "\n")
            atomic_write_text(folder / MERGES_TEXT, merges_text(vocabulary))
        atomic_write_text(folder / TOKENIZER_JSON, self._backend.to_str(pretty=True) + "\n")
        atomic_write_json(folder / "tokenizer_config.json", _transformers_config(vocabulary))


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
    special = vocabulary.special
    if vocabulary.merges is None:
        model = models.WordPiece(ids, unk_token=special.unknown, max_input_chars_per_word=100)
        backend = tokenizers.Tokenizer(model)
        backend.normalizer = normalizer(vocabulary.lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        backend.add_special_tokens(list(special))
    else:
        backend = tokenizers.Tokenizer(models.BPE(ids, list(vocabulary.merges)))
        put_byte_level(backend, vocabulary.lowercase, vocabulary.add_prefix_space)
        backend.decoder = decoders.ByteLevel()
        # The space before a mask is part of the word that was there (as in RoBERTa), so the mask takes it in.
        masks = [tokenizers.AddedToken(special.mask, lstrip=True, special=True, normalized=False)]
        backend.add_special_tokens([token for token in special if token != special.mask] + masks)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{special.cls} $A {special.sep}",
        pair=f"{special.cls} $A {special.sep} $B:1 {special.sep}:1",
        special_tokens=[(token, ids[token]) for token in (special.cls, special.sep)],
    )
    return backend


def put_byte_level(backend: tokenizers.Tokenizer, lowercase: bool, add_prefix_space: bool) -> None:
    """Make `backend` split text as byte-level BPE does: GPT-2's pattern, then one character for each byte."""
    if lowercase:
        backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=True)


def _transformers_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`.

    Byte-level BPE goes by the general class, which takes `tokenizer.json` as it is: `RobertaTokenizer` makes its own,
    which keeps capitals and joins pairs by `</s></s>`, unlike the rows that a model is trained on here.
    """
    special = vocabulary.special
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config: dict[str, Any] = {**dict(zip(names, special, strict=True)), "do_lower_case": vocabulary.lowercase}
    if vocabulary.merges is None:
        return {"tokenizer_class": "BertTokenizer", **config}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **config,
        "bos_token": special.cls,
        "eos_token": special.sep,
        "add_prefix_space": vocabulary.add_prefix_space,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
