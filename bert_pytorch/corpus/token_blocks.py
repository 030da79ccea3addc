"""First half of encoding: a block of documents to a file of its tokens and of the sequences planned over them.

Text is read and tokenized once, whatever the number of sequence lengths: each of them adds a plan, five numbers a
sequence.  How many sequences a corpus has is known only when all blocks are planned; `corpus.shard_rows` then writes
shards of equal size from these files.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bert_pytorch.corpus.plan import Block, DocumentTable, read_documents
from bert_pytorch.corpus.sequences import (
    Kind,
    Spans,
    TokenizedDocuments,
    plan_full_sentences,
    plan_sequences,
    row_lengths,
    separate_documents,
)
from bert_pytorch.files import atomic_path
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer

_PURPOSE_SEQUENCES, _PURPOSE_SHUFFLE = 1, 2
_CHARACTERS_AT_ONCE = 1 << 20
_SMALL_VOCABULARY = 1 << 16


class SequenceSettings(NamedTuple):
    """How the sequences of one set are planned."""

    sequence_length: int
    kind: Kind
    short_seq_prob: float
    next_seq_prob: float
    """0 unless `kind` is pairs."""
    dupe_factor: int
    seed: int
    bin_size: int
    """Sequences are ordered by ceil(length / bin_size); 0, not at all."""

    @property
    def num_bins(self) -> int:
        """Classes of length."""
        return -(-self.sequence_length // self.bin_size) if self.bin_size else 1


class TokenTask(NamedTuple):
    """Everything a worker needs to make one token file."""

    folder: Path
    """In which the tokenizer lies and the file goes."""
    block: Block
    sets: tuple[SequenceSettings, ...]

    @property
    def path(self) -> Path:
        """The token file."""
        return self.folder / f"{self.block.name}.safetensors"

    @property
    def num_bytes(self) -> int:
        """Text to be encoded."""
        return self.block.documents.num_bytes

    def describe(self) -> str:
        """Name the files that are read."""
        documents = self.block.documents
        names = [str(documents.files[index]) for index in np.unique(documents.file_indices)]
        return f"tokens of {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


class TokenBlock(NamedTuple):
    """What one token file holds; small enough to be kept for every block of a corpus."""

    path: Path
    number: int
    """Of the block in the plan."""
    documents: int
    rows: dict[int, list[int]]
    """For each sequence length, sequences in each bin; in the file they stand in the order of bins."""
    histograms: dict[int, list[int]]
    """For each sequence length, sequences of each length, 0 to L."""


def make_token_block(task: TokenTask) -> TokenBlock:
    """Tokenize a block, plan its sequences for every set, and write both."""
    tokenizer = _tokenizer(task.folder)
    documents = tokenize_documents(task.block.documents, tokenizer)
    sep_id = tokenizer.vocabulary.sep_id
    if task.sets[0].kind == "full_sentences":
        documents = separate_documents(documents, sep_id)
    small = len(tokenizer.vocabulary.tokens) <= _SMALL_VOCABULARY
    arrays = {"ids": documents.ids.astype(np.uint16 if small else np.int32)}
    rows, histograms = {}, {}
    for settings in task.sets:
        length = settings.sequence_length
        spans, bins = plan_set(documents, settings, task.block.number, sep_id)
        lengths = row_lengths(spans, settings.kind == "pairs")
        rows[length] = np.bincount(bins, minlength=settings.num_bins).tolist()
        histograms[length] = np.bincount(lengths, minlength=length + 1).tolist()
        arrays |= {_key(length, name): column.astype(np.int32) for name, column in spans._asdict().items()}
    block = TokenBlock(task.path, task.block.number, task.block.documents.num_documents, rows, histograms)
    with atomic_path(task.path) as temporary:
        save_file(arrays, temporary, metadata={"block": _to_json(block)})
    return block


def finished_block(task: TokenTask) -> TokenBlock | None:
    """Describe the task's file if an earlier start made it, else None."""
    if not task.path.is_file():
        return None
    try:
        with safe_open(task.path, "np") as file:
            return _from_json(task.path, file.metadata()["block"])
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None  # damaged by a disk: made again


def load_spans(path: Path, sequence_length: int, start: int, stop: int) -> tuple[np.ndarray, Spans]:
    """Read the tokens of a file and some of the sequences planned over them: ids (T,), spans of stop − start rows."""
    with safe_open(path, "np") as file:
        columns = {
            name: file.get_slice(_key(sequence_length, name))[start:stop].astype(np.int64)  # products pass 2^31
            for name in Spans._fields
        }
        spans = Spans(**columns)
        return file.get_tensor("ids"), spans._replace(random_next=spans.random_next.astype(np.int8))


def tokenize_documents(documents: DocumentTable, tokenizer: Tokenizer) -> TokenizedDocuments:
    """Read and encode documents, each line a sentence; about 1 MB of text is held at a time."""
    ids, counts, borders = [], [np.zeros(1, np.int64)], [0]
    lines: list[str] = []
    for lines in _batches(documents, borders):
        tokens = tokenizer.encode_flat(lines)
        ids.append(tokens.ids)
        counts.append(np.diff(tokens.offsets))
    return TokenizedDocuments(
        np.concatenate([np.empty(0, np.int32), *ids]), np.cumsum(np.concatenate(counts)), np.array(borders, np.int64)
    )


def _batches(documents: DocumentTable, borders: list[int]) -> Iterator[list[str]]:
    """Yield lines of whole documents, and note in `borders` after how many lines each document ends."""
    lines: list[str] = []
    size = yielded = 0
    for document in read_documents(documents):
        lines += document
        size += sum(map(len, document))
        borders.append(yielded + len(lines))
        if size >= _CHARACTERS_AT_ONCE:
            yield lines
            yielded += len(lines)
            lines, size = [], 0
    yield lines


def plan_set(
    documents: TokenizedDocuments, settings: SequenceSettings, block_number: int, sep_id: int
) -> tuple[Spans, np.ndarray]:
    """Plan `dupe_factor` passes over a block's documents and shuffle them, within bins of length.

    Returns:
        Spans of n sequences, and the bin of each, int64 (n,), ascending.
    """
    length, kind, seed = settings.sequence_length, settings.kind, settings.seed
    passes = []
    for repeat in range(settings.dupe_factor):
        rng = np.random.default_rng([seed, _PURPOSE_SEQUENCES, block_number, repeat])
        if kind == "full_sentences":
            passes.append(plan_full_sentences(documents, length, settings.short_seq_prob, sep_id, rng))
        else:
            passes.append(plan_sequences(documents, length, settings.short_seq_prob, settings.next_seq_prob, rng))
    spans = Spans(*(np.concatenate(columns) for columns in zip(*passes, strict=True)))
    order = np.random.default_rng([seed, _PURPOSE_SHUFFLE, block_number]).permutation(len(spans.a_starts))
    bins = np.zeros(len(order), np.int64)
    if settings.bin_size:
        bins = (row_lengths(spans, kind == "pairs")[order] - 1) // settings.bin_size
        sorting = np.argsort(bins, kind="stable")
        order, bins = order[sorting], bins[sorting]
    return Spans(*(column[order] for column in spans)), bins


def _key(sequence_length: int, name: str) -> str:
    return f"{sequence_length}.{name}"


def _to_json(block: TokenBlock) -> str:
    values = {**block._asdict(), "path": None}
    return json.dumps(values)


def _from_json(path: Path, text: str) -> TokenBlock:
    values: dict[str, Any] = json.loads(text)
    for name in ("rows", "histograms"):
        values[name] = {int(length): counts for length, counts in values[name].items()}
    return TokenBlock(**{**values, "path": path})


@functools.lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)
