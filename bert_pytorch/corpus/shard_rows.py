"""Second half of encoding: rows of planned sequences, gathered from token files, to shards equal within one row."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.sequences import Frame, Spans, lay_out
from bert_pytorch.corpus.token_blocks import TokenBlock, load_spans
from bert_pytorch.data.masking import MaskingPolicy, mask_tokens, sample_keys
from bert_pytorch.errors import InputError
from bert_pytorch.files import sha256_of
from bert_pytorch.records import SequenceRows, StaticMasks
from bert_pytorch.shards.headers import read_header
from bert_pytorch.shards.manifest import ShardRecord
from bert_pytorch.shards.writing import Compression, write_parts

_ROWS_AT_ONCE = 4096


class Piece(NamedTuple):
    """Consecutive sequences of one token file."""

    path: Path
    block_number: int
    start: int
    stop: int


class ShardTask(NamedTuple):
    """Everything a worker needs to make one shard."""

    path: Path
    pieces: tuple[Piece, ...]
    frame: Frame
    policy: MaskingPolicy | None
    """How rows are masked for good; None where masking is dynamic."""
    seed: int
    compression: Compression
    attributes: dict[str, Any]
    """Of the build: its fingerprint, vocabulary, settings."""

    @property
    def num_rows(self) -> int:
        """Rows of the shard."""
        return sum(piece.stop - piece.start for piece in self.pieces)

    @property
    def num_bytes(self) -> int:
        """Of its `input_ids`, for progress."""
        return 4 * self.num_rows * self.frame.sequence_length

    def describe(self) -> str:
        """Name the shard."""
        return str(self.path)


def deal_rows(blocks: Sequence[TokenBlock], sequence_length: int, rows_a_shard: int) -> list[tuple[Piece, ...]]:
    """Divide all sequences of some blocks into the fewest shards of at most `rows_a_shard`, equal within one row.

    Sequences are taken bin by bin, within a bin block by block.
    """
    runs = list(_runs(blocks, sequence_length))
    ends = np.cumsum([0, *(run.stop - run.start for run in runs)])
    total = int(ends[-1])
    count = -(-total // rows_a_shard)
    shards = []
    for index in range(count):
        first, last = index * total // count, (index + 1) * total // count
        pieces = []
        for run in range(int(np.searchsorted(ends, first, "right")) - 1, int(np.searchsorted(ends, last, "left"))):
            skipped, begin = runs[run].start - int(ends[run]), int(ends[run])
            start, stop = max(first, begin) + skipped, min(last, int(ends[run + 1])) + skipped
            if stop > start:
                pieces.append(runs[run]._replace(start=start, stop=stop))
        shards.append(tuple(pieces))
    return shards


def _runs(blocks: Sequence[TokenBlock], sequence_length: int) -> Iterator[Piece]:
    """Yield each block's sequences of each bin, in the order of a whole set."""
    counts = np.array([block.rows[sequence_length] for block in blocks], np.int64)
    if not len(counts):
        return
    starts = np.cumsum(counts, axis=1) - counts
    for bin_number in range(counts.shape[1]):
        for block, start, count in zip(blocks, starts[:, bin_number], counts[:, bin_number], strict=True):
            yield Piece(block.path, block.number, int(start), int(start + count))


def make_shard(task: ShardTask) -> ShardRecord:
    """Gather, lay out and mask a shard's rows, write and describe it."""
    written = write_parts(task.path, _parts(task), task.num_rows, task.attributes, task.compression)
    return ShardRecord(name=task.path.name, rows=task.num_rows, **written._asdict())


def _parts(task: ShardTask) -> Iterator[SequenceRows]:
    for piece in task.pieces:
        ids, spans = load_spans(piece.path, task.frame.sequence_length, piece.start, piece.stop)
        for start in range(0, piece.stop - piece.start, _ROWS_AT_ONCE):  # index arrays take 24 bytes a token
            chosen = slice(start, start + _ROWS_AT_ONCE)
            rows = lay_out(ids, Spans(*(column[chosen] for column in spans)), task.frame)
            if task.policy is not None:
                indices = piece.start + start + np.arange(len(rows.lengths))
                rows = mask_rows(rows, sample_keys(task.seed, piece.block_number, indices), task.frame, task.policy)
            yield rows


def finished_shard(task: ShardTask) -> ShardRecord | None:
    """Describe the task's shard if an earlier start of the same build made it, else None."""
    if not task.path.is_file():
        return None
    try:
        header = read_header(task.path)
    except InputError:
        return None
    if header.attributes.get("fingerprint") != task.attributes["fingerprint"] or header.num_rows != task.num_rows:
        return None
    counted = {name: header.attributes[name] for name in ("tokens", "shortest", "longest")}
    size = task.path.stat().st_size
    return ShardRecord(name=task.path.name, rows=header.num_rows, bytes=size, sha256=sha256_of(task.path), **counted)


def mask_rows(rows: SequenceRows, keys: np.ndarray, frame: Frame, policy: MaskingPolicy) -> SequenceRows:
    """Mask rows for good: corrupted ids, and NVIDIA's slots with what stood there.

    Args:
        rows: n unmasked rows.
        keys: uint64 (n,), one for each row.
        frame: the special tokens, which are never masked.
        policy: how; `max_predictions` is the number of slots P.
    """
    inside = np.arange(rows.input_ids.shape[1]) < rows.lengths[:, None]
    tokens = rows.input_ids[inside]
    maskable = (tokens != frame.cls_id) & (tokens != frame.sep_id)
    cu_seqlens = np.concatenate([[0], np.cumsum(rows.lengths, dtype=np.int64)])
    masked = mask_tokens(tokens, maskable, cu_seqlens, keys, policy)

    owner = np.repeat(np.arange(len(rows.lengths)), masked.counts)
    slot = np.arange(len(owner)) - (np.cumsum(masked.counts) - masked.counts)[owner]
    positions = np.zeros((len(rows.lengths), policy.max_predictions), np.int32)
    token_ids = np.zeros_like(positions)
    positions[owner, slot] = masked.positions - cu_seqlens[owner]
    token_ids[owner, slot] = masked.labels
    input_ids = rows.input_ids.copy()
    input_ids[inside] = masked.input_ids
    return rows._replace(input_ids=input_ids, static_masks=StaticMasks(positions, token_ids, masked.counts))
