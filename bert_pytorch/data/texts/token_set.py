"""Texts as a `RowSource`: tokenized at the first start, mapped into memory at every other."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from bert_pytorch.data.texts.config import TextConfig
from bert_pytorch.data.texts.cutting import SPECIAL, token_dtype
from bert_pytorch.data.texts.finding import find_text_files, nothing_found
from bert_pytorch.data.texts.reading import total_bytes
from bert_pytorch.data.texts.token_file import FORMAT_VERSION, TokenFile, damaged, open_token_file, write_token_file
from bert_pytorch.data.texts.tokenizing import tokenize
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.progress import Progress
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, cache_folder, identity, limit_bytes
from bert_pytorch.shards.opening import Split
from bert_pytorch.shards.room import built_once
from bert_pytorch.vocabulary import vocabulary_sha256

logger = logging.getLogger(__name__)

_BYTES_PER_TOKEN = 4
"""Of English text, with a vocabulary of 30,000 WordPieces."""


def open_texts(path: Path, split: Split, config: TextConfig, vocabulary: Vocabulary | None) -> "TokenSet":
    """Open text as sequences, tokenizing it where no start before has done so.

    Args:
        path: a Parquet file, a folder of them, or a folder that `datasets` saved.
        split: which part.
        config: the column, and how long a sequence may be.
        vocabulary: what the text is tokenized with.

    Raises:
        ConfigError: if the vocabulary or the length is not given.
        InputError: if there is no text, or a file is damaged or has no such column.
        MissingDependencyError: if pyarrow is not installed.
    """
    longest = config.max_seq_len
    if vocabulary is None:
        problem = (
            f"it is missing: {path} is text, to be tokenized. Name a vocab.txt or tokenizer.json, or make one: "
            f"python -m bert_pytorch.corpus format --input {path} --output FORMATTED, then "
            "python -m bert_pytorch.corpus vocab --input FORMATTED --output DIR"
        )
        raise ConfigError("--vocab_file", [problem])
    if longest is None:
        problem = f"it is missing: {path} is text, to be cut to sequences of so many tokens at most. Give 128, say."
        raise ConfigError("--max_seq_len", [problem])
    files = find_text_files(path, split)
    if not files:
        raise nothing_found(path, split)
    name = _cache_name(files, config.text_column, vocabulary, longest)
    if not (cache_folder() / name).exists():
        text_bytes = total_bytes(files, config.text_column)
        size = text_bytes // _BYTES_PER_TOKEN * token_dtype(vocabulary).itemsize
    else:
        text_bytes = size = 0

    def build(target: Path) -> None:
        logger.info(
            "%s: tokenizing %.1f MB of text to about %.1f MB in %s, once ($%s names another folder)",
            *(path, text_bytes / 1e6, size / 1e6, cache_folder(), FOLDER_VARIABLE),
        )
        if size > limit_bytes():
            logger.warning("that is more than $%s: %.2f GiB", LIMIT_VARIABLE, limit_bytes() / 2**30)
        with Progress(f"tokenizing {path.name}", text_bytes) as progress:
            blocks = tokenize(files, config.text_column, vocabulary, longest, progress, text_bytes)
            count = write_token_file(target, blocks, token_dtype(vocabulary), longest)
        if not count:
            raise InputError(f'{path}: no text in the column "{config.text_column}". Name another --text_column.')

    return TokenSet(built_once(name, size, build), path, len(files), longest, vocabulary)


class TokenSet:
    """The sequences of texts, in the order of the texts; single segments, masked anew in every epoch.

    Args:
        path: the file of tokens.
        source: what was named, for messages.
        num_files: files of text.
        longest: tokens of a sequence at most.
        vocabulary: of the tokens.
    """

    has_next_sentence = False
    static = False

    def __init__(self, path: Path, source: Path, num_files: int, longest: int, vocabulary: Vocabulary) -> None:
        self._path = path
        self._source = source
        self._num_files = num_files
        self._longest = longest
        self._excluded: frozenset[int] = frozenset()
        self.vocabulary: Vocabulary | None = vocabulary
        self._pad_id, self._num_ids = vocabulary.pad_id, len(vocabulary.tokens)
        self.num_sequences = len(self._mapped.offsets) - 1

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence at most."""
        return self._longest

    @property
    def shard_sizes(self) -> np.ndarray:
        """All sequences: int64 (1,), one file of tokens is one shard."""
        return np.asarray([self.num_sequences], np.int64)

    @property
    def paths(self) -> Sequence[Path]:
        """The file of tokens."""
        return [self._path]

    @property
    def excluded(self) -> frozenset[int]:
        """Shard 0 where the file of tokens is left out."""
        return self._excluded

    def exclude(self, shards: Iterable[int]) -> None:
        """Leave more shards out."""
        self._excluded |= frozenset(shards)

    def owners(self, indices: np.ndarray) -> np.ndarray:
        """Return the shard of each row, int64 (n,)."""
        return np.zeros(len(indices), np.int64)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of rows, int32 (n,)."""
        offsets = self._mapped.offsets
        return (offsets[indices + 1] - offsets[indices]).astype(np.int32)

    def rows(self, indices: np.ndarray) -> SequenceRows:
        """Gather rows in the order asked for, as wide as the longest of them.

        Args:
            indices: int64 (n,), each in [0, num_sequences), in any order, repeats allowed.

        Raises:
            InputError: if the file of tokens is damaged there.
            IndexError: if an index is not in the set.
        """
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.num_sequences):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of a set of {self.num_sequences}")
        windows, offsets = self._mapped
        starts, lengths = offsets[indices], self.lengths(indices)
        shortest, longest = lengths.min(initial=self._longest), int(lengths.max(initial=SPECIAL))
        if shortest <= SPECIAL or longest > self._longest or starts.max(initial=0) >= len(windows):
            raise damaged(self._path)
        input_ids = windows[starts, :longest].astype(np.int32)
        if input_ids.max(initial=0) >= self._num_ids or input_ids.min(initial=0) < 0:
            raise damaged(self._path)
        input_ids[np.arange(longest) >= lengths[:, None]] = self._pad_id
        return SequenceRows(input_ids, lengths, lengths, None, None)

    def expect(self, shards: Sequence[int]) -> None:
        """Do nothing: the tokens are here."""

    def describe(self) -> str:
        """Say in one line what this set is."""
        assert self.vocabulary is not None
        return (
            f"{self._source}: {self.num_sequences:,} sequences of up to {self._longest} tokens (single segments, "
            f"dynamic masking, vocabulary of {self.vocabulary.describe()}) from {self._num_files} file(s) of text"
        )

    def close(self) -> None:
        """Forget the mapping; the next read opens it again."""
        self.__dict__.pop("_mapped", None)

    @cached_property
    def _mapped(self) -> TokenFile:
        return open_token_file(self._path)


def _cache_name(files: Sequence[Path], column: str, vocabulary: Vocabulary, longest: int) -> str:
    """Name the file of tokens by everything that decides what is in it."""
    parts = [FORMAT_VERSION, column, longest, vocabulary_sha256(vocabulary), vocabulary.lowercase]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for file in files:
        digest.update(b"\0\0" + identity(file).encode(errors="surrogateescape"))
    return f"{digest.hexdigest()}.tokens"
