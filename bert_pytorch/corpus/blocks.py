"""One block of documents to one shard: what a worker process does."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.plan import Block, DocumentTable, read_documents
from bert_pytorch.corpus.sequences import Spans, TokenizedDocuments, lay_out, plan_sequences
from bert_pytorch.data.masking import MaskingConfig, MaskingPolicy, mask_tokens, policy_for, sample_keys
from bert_pytorch.errors import InputError
from bert_pytorch.files import sha256_of
from bert_pytorch.records import CLS_TOKEN, SEP_TOKEN, SequenceRows, StaticMasks
from bert_pytorch.shards.manifest import ShardRecord
from bert_pytorch.shards.shard_file import read_header
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer

_PURPOSE_SEQUENCES, _PURPOSE_SHUFFLE = 1, 2


class BlockTask(NamedTuple):
    """Everything a worker needs to make one shard."""

    folder: Path
    """The set's folder, in which the tokenizer lies already."""
    sequence_length: int
    block: Block
    settings: dict[str, Any]
    """Those that decide the bytes, by the names of `EncodeConfig`."""
    fingerprint: str
    """Of the whole build, stored in the shard."""

    @property
    def path(self) -> Path:
        """The shard's file."""
        return self.folder / f"{self.block.name}.hdf5"

    @property
    def num_bytes(self) -> int:
        """Text to be encoded."""
        return self.block.documents.num_bytes

    def describe(self) -> str:
        """Name the shard and the files it is made from."""
        documents = self.block.documents
        names = [str(documents.files[index]) for index in np.unique(documents.file_indices)]
        return f"{self.path.name} (from {', '.join(names[:3])}{' …' if len(names) > 3 else ''})"


def encode_block(task: BlockTask) -> ShardRecord | None:
    """Make a shard and describe it; None, and no file, where the block holds no token."""
    tokenizer = _tokenizer(task.folder)
    documents = tokenize_documents(task.block.documents, tokenizer)
    rows = build_rows(documents, task, tokenizer)
    if rows is None:
        return None
    tokens = int(rows.lengths.sum())
    attributes = {
        "fingerprint": task.fingerprint,
        "vocabulary_sha256": tokenizer.sha256,
        "lowercase": tokenizer.vocabulary.lowercase,
        "seed": task.settings["seed"],
        "settings": json.dumps(task.settings, sort_keys=True),
        "documents": task.block.documents.num_documents,
        "tokens": tokens,
    }
    write_shard(task.path, rows, attributes, task.settings["compression"])
    return ShardRecord(
        name=task.path.name,
        rows=len(rows.lengths),
        tokens=tokens,
        documents=task.block.documents.num_documents,
        sha256=sha256_of(task.path),
    )


def finished_record(task: BlockTask) -> ShardRecord | None:
    """Describe the task's shard if an earlier start of the same build made it, else None."""
    if not task.path.is_file():
        return None
    try:
        header = read_header(task.path)
    except InputError:
        return None
    if header.attributes.get("fingerprint") != task.fingerprint:
        return None
    return ShardRecord(
        name=task.path.name,
        rows=header.num_rows,
        tokens=header.attributes["tokens"],
        documents=header.attributes["documents"],
        sha256=sha256_of(task.path),
    )


def tokenize_documents(documents: DocumentTable, tokenizer: Tokenizer) -> TokenizedDocuments:
    """Read and encode documents, each line a sentence."""
    lines: list[str] = []
    borders = [0]
    for document in read_documents(documents):
        lines += document
        borders.append(len(lines))
    ids, offsets = tokenizer.encode_flat(lines)
    return TokenizedDocuments(ids, offsets, np.array(borders, np.int64))


def build_rows(documents: TokenizedDocuments, task: BlockTask, tokenizer: Tokenizer) -> SequenceRows | None:
    """Plan `dupe_factor` passes over the documents, lay them out, shuffle, and mask where masking is static."""
    settings, seed = task.settings, task.settings["seed"]
    passes = []
    for repeat in range(settings["dupe_factor"]):
        rng = np.random.default_rng([seed, _PURPOSE_SEQUENCES, task.block.number, repeat])
        passes.append(
            plan_sequences(documents, task.sequence_length, settings["short_seq_prob"], settings["next_seq_prob"], rng)
        )
    spans = Spans(*(np.concatenate(columns) for columns in zip(*passes, strict=True)))
    if not len(spans.a_starts):
        return None
    order = np.random.default_rng([seed, _PURPOSE_SHUFFLE, task.block.number]).permutation(len(spans.a_starts))
    spans = Spans(*(column[order] for column in spans))
    vocabulary = tokenizer.vocabulary
    cls_id, sep_id = vocabulary.id_of(CLS_TOKEN), vocabulary.id_of(SEP_TOKEN)
    rows = lay_out(documents.ids, spans, task.sequence_length, cls_id, sep_id, settings["next_seq_prob"] > 0)
    if settings["masking"] == "dynamic":
        return rows
    config = MaskingConfig(
        masked_token_fraction=settings["masked_token_fraction"],
        max_predictions_per_seq=settings["max_predictions_per_seq"],
    )
    return mask_rows(rows, sample_keys(seed, task.block.number, np.arange(len(order))), policy_for(config, vocabulary))


def mask_rows(rows: SequenceRows, keys: np.ndarray, policy: MaskingPolicy) -> SequenceRows:
    """Mask rows for good: corrupted ids, and NVIDIA's slots with what stood there.

    Args:
        rows: n unmasked rows.
        keys: uint64 (n,), one for each row.
        policy: how; `max_predictions` is the number of slots P.
    """
    columns = np.arange(rows.input_ids.shape[1])
    inside = columns < rows.lengths[:, None]
    special = (columns == 0) | (columns == rows.lengths[:, None] - 1)
    special |= columns == rows.segment_b_starts[:, None] - 1
    cu_seqlens = np.concatenate([[0], np.cumsum(rows.lengths, dtype=np.int64)])
    masked = mask_tokens(rows.input_ids[inside], ~special[inside], cu_seqlens, keys, policy)

    owner = np.repeat(np.arange(len(rows.lengths)), masked.counts)
    slot = np.arange(len(owner)) - (np.cumsum(masked.counts) - masked.counts)[owner]
    positions = np.zeros((len(rows.lengths), policy.max_predictions), np.int32)
    token_ids = np.zeros_like(positions)
    positions[owner, slot] = masked.positions - cu_seqlens[owner]
    token_ids[owner, slot] = masked.labels
    input_ids = rows.input_ids.copy()
    input_ids[inside] = masked.input_ids
    return rows._replace(input_ids=input_ids, static_masks=StaticMasks(positions, token_ids, masked.counts))


@functools.lru_cache(maxsize=2)
def _tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)
