"""A vocabulary from formatted text: the settings of `vocab` and its story."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.plan import DocumentTable, find_documents, read_documents, text_files
from bert_pytorch.errors import InputError
from bert_pytorch.files import exclusive_lock
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.layouts import VOCABULARY_RECORD
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.tokenization.training import SMALLEST_BYTE_BPE, extend_wordpiece, train_byte_bpe, train_wordpiece
from bert_pytorch.vocabulary import (
    MERGES_TEXT,
    TOKENIZER_JSON,
    VOCABULARY_JSON,
    VOCABULARY_TEXT,
    read_vocabulary,
    vocabulary_sha256,
)

logger = logging.getLogger(__name__)

VocabularyKind = Literal["wordpiece", "byte_bpe"]
_VERSION = 1


class VocabConfig(Settings):
    """Train a vocabulary on formatted text."""

    input: tuple[Path, ...] = ()
    """Formatted text: files, or folders searched for *.txt."""
    output: Path | None = None
    """Folder for vocab.txt and tokenizer.json."""
    extend: Path | None = None
    """A WordPiece vocabulary (a file, or a folder with one, such as a model's) whose tokens come first, as they are;
    what the text teaches is appended until there are --vocab_size. A run may begin with weights of the shorter one."""
    kind: VocabularyKind = "wordpiece"
    """wordpiece: BERT's. byte_bpe: RoBERTa's byte-level BPE, in which every text has tokens."""
    vocab_size: int = Field(30522, ge=16)
    """Tokens, special ones included; fewer where the text does not hold as many (BERT: 30522, RoBERTa: 50265)."""
    lowercase: bool = True
    """Lower-case text (wordpiece: and strip accents); --no-lowercase keeps it as it is (cased, as RoBERTa)."""
    add_prefix_space: bool = True
    """byte_bpe: spell a sentence's first word as inside a sentence, with a space before it (RoBERTa does not)."""
    sample_bytes: int = Field(50_000_000, gt=0)
    """Text that is trained on: whole documents drawn at random up to this size, a longer one cut. Memory of
    wordpiece: about ten times as much."""
    seed: int = Field(12345, ge=0)
    """Seed of that sample."""
    overwrite: bool = False
    """Replace a vocabulary made with other settings."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "input_dir": "--input",
        "output_dir": "--output",
        "size": "--vocab_size",
        "vocab_kind": "--kind",
        "tokenizer": "--kind (wordpiece or byte_bpe)",
        "uppercase": "--no-lowercase",
        "do_lower_case": "--lowercase",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name formatted text, a file or a folder."
        if self.output is None:
            yield "--output is missing: name a folder for the vocabulary."
        if self.kind == "byte_bpe" and self.vocab_size < SMALLEST_BYTE_BPE:
            yield (
                f"--vocab_size: found {self.vocab_size}, wanted {SMALLEST_BYTE_BPE} or more for --kind byte_bpe: 5 "
                "special tokens and 256 bytes."
            )
        if self.extend is not None and self.kind != "wordpiece":
            yield f"--extend is for --kind wordpiece, found {self.kind}: keep one of them."


def make_vocabulary(config: VocabConfig) -> Path:
    """Train the vocabulary into `config.output` and return that folder; a finished one is left as it is.

    Raises:
        InputError: if the text cannot be used, or the folder holds another vocabulary.
    """
    assert config.output is not None
    base = None if config.extend is None else _read_base(config.extend, config)
    documents = find_documents(text_files(config.input, config.output))
    if documents.num_documents == 0:
        raise InputError(f"{', '.join(map(str, config.input))}: there is no text in it. Give formatted text.")
    settings: dict[str, Any] = {
        name: getattr(config, name) for name in ("vocab_size", "lowercase", "sample_bytes", "seed")
    }
    if config.kind == "byte_bpe":  # not for wordpiece: finished vocabularies stay valid
        settings |= {"kind": config.kind, "add_prefix_space": config.add_prefix_space}
    if base is not None:
        settings |= {"extends": vocabulary_sha256(base), "lowercase": base.lowercase}
    fingerprint = fingerprint_of(_VERSION, settings, documents.sha256)
    products = (VOCABULARY_TEXT, TOKENIZER_JSON, VOCABULARY_JSON, MERGES_TEXT)
    build = Build(config.output, VOCABULARY_RECORD, fingerprint, settings, products)
    with exclusive_lock(config.output, "builds"):
        if config.overwrite:
            build.clear()
        if not build.needs_work():
            logger.info("%s: finished already, nothing to do", config.output)
            return config.output
        with build.in_work():
            tokenizer = _train(documents, config, base)
            tokenizer.save(config.output)
            size = len(tokenizer.vocabulary.tokens)
            build.finish({"settings": settings, "fingerprint": fingerprint, "size": size, "sha256": tokenizer.sha256})
    added = "" if base is None else f", {size - len(base.tokens)} of them new"
    logger.info("%s: %d tokens%s", config.output, size, added)
    return config.output


def _read_base(path: Path, config: VocabConfig) -> Vocabulary:
    """Read the vocabulary to extend; where it does not tell its casing, --lowercase does."""
    base = read_vocabulary(path, otherwise=config.lowercase)
    if base.merges is not None:
        raise InputError(f"{path}: it is byte-level BPE; --extend takes WordPiece, whose words need no merges.")
    if len(base.tokens) >= config.vocab_size:
        raise InputError(
            f"{path}: it has {len(base.tokens)} tokens, --vocab_size asks for {config.vocab_size} in all. Ask for "
            f"more, such as --vocab_size {len(base.tokens) + 1000}"
        )
    return base


def _train(documents: DocumentTable, config: VocabConfig, base: Vocabulary | None) -> Tokenizer:
    sample = sample_documents(documents, config.sample_bytes, config.seed)
    logger.info("training a vocabulary on %.1f MB of %.1f MB", sample.num_bytes / 1e6, documents.num_bytes / 1e6)
    if config.kind == "byte_bpe":  # lines as they will be encoded: each by itself
        lines = (line for document in read_documents(sample) for line in document)
        return train_byte_bpe(lines, config.vocab_size, config.lowercase, config.add_prefix_space)
    texts = (" ".join(lines) for lines in read_documents(sample))
    if base is not None:
        return extend_wordpiece(texts, base, config.vocab_size)
    return train_wordpiece(texts, config.vocab_size, config.lowercase)


def sample_documents(documents: DocumentTable, num_bytes: int, seed: int) -> DocumentTable:
    """Draw documents until `num_bytes` are reached; they keep their order, and one longer than that is cut."""
    order = np.random.default_rng([seed, 4]).permutation(documents.num_documents)
    sizes = (documents.ends - documents.starts)[order]
    enough = int(np.searchsorted(np.cumsum(sizes), num_bytes)) + 1
    sample = documents.take(np.sort(order[:enough]))
    ends = [
        end if end - start <= num_bytes else _character_end(documents.files[owner], start + num_bytes)
        for owner, start, end in zip(sample.file_indices, sample.starts, sample.ends, strict=True)
    ]
    return sample._replace(ends=np.array(ends, np.int64))


def _character_end(path: Path, offset: int) -> int:
    """Return the largest offset up to `offset` that no UTF-8 character stands across."""
    first = max(0, offset - 3)
    with path.open("rb") as file:
        file.seek(first)
        content = file.read(offset - first + 1)
    while len(content) > 1 and content[-1] & 0xC0 == 0x80:
        content = content[:-1]
    return first + len(content) - 1
