"""One shard to Habana's layout, in pieces: whatever its size, a worker holds one piece and some bytes a sequence."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.sequences import Frame
from bert_pytorch.corpus.shard_rows import mask_rows
from bert_pytorch.data.masking import MaskingPolicy, sample_keys
from bert_pytorch.data.row_packing import RowPlan, pack_lengths
from bert_pytorch.errors import InputError
from bert_pytorch.files import sha256_of
from bert_pytorch.records import SequenceRows, StaticMasks
from bert_pytorch.shards.headers import read_header
from bert_pytorch.shards.manifest import ShardRecord
from bert_pytorch.shards.packed_writing import Block, most_masked_tokens, write_packed
from bert_pytorch.shards.streams import read_parts
from bert_pytorch.shards.writing import Compression

_PARTS_PLANNED = 4
"""Parts of 2 million tokens whose sequences may share rows: 16,384 sequences of 512 tokens.  A quarter of that leaves
a third more padding in rows shaped as Wikipedia's, all of a shard of 60,000 a thirtieth less."""
_ROWS_AT_ONCE = 1024
"""Rows laid out together, as many as there are in a compressed chunk."""


class PackTask(NamedTuple):
    """Everything a worker needs to pack one shard."""

    source: Path
    target: Path
    first_number: int
    """Number of the shard's first sequence in its part of the set."""
    frame: Frame
    policy: MaskingPolicy | None
    """How sequences are masked; None where they come masked."""
    seed: int
    max_sequences: int
    mask_slots: int
    """Slots for masked tokens of a row; more where one needs more."""
    compression: Compression
    attributes: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Of the source, for progress."""
        return self.source.stat().st_size

    def describe(self) -> str:
        """Name the shard."""
        return str(self.source)


def pack_shard(task: PackTask) -> ShardRecord:
    """Mask a shard's sequences where they are not, pack and write them: read once to plan, once to write."""
    plans, mask_slots = [], task.mask_slots
    for piece in _pieces(task):
        lengths = np.concatenate([part.lengths for part in piece])
        plan = pack_lengths(lengths, task.frame.sequence_length, task.max_sequences)
        counts = np.concatenate([_masks(part).counts for part in piece])
        mask_slots = max(mask_slots, most_masked_tokens(plan.rows, counts))
        plans.append(plan._replace(rows=plan.rows.astype(np.int32), slots=plan.slots.astype(np.int16)))
    num_rows = sum(plan.num_rows for plan in plans)
    written = write_packed(
        task.target, _blocks(task, plans), num_rows, task.max_sequences, mask_slots, task.frame.pad_id,
        task.attributes, task.compression,
    )  # fmt: skip
    sequences = sum(len(plan.rows) for plan in plans)
    return ShardRecord(name=task.target.name, rows=sequences, **written._asdict())


def finished_pack(task: PackTask) -> ShardRecord | None:
    """Describe the task's shard if an earlier start of the same build made it, else None."""
    if not task.target.is_file():
        return None
    try:
        header = read_header(task.target)
    except InputError:
        return None
    if header.attributes.get("fingerprint") != task.attributes["fingerprint"]:
        return None
    counted = {name: header.attributes[name] for name in ("tokens", "shortest", "longest")}
    size, sha256 = task.target.stat().st_size, sha256_of(task.target)
    return ShardRecord(name=task.target.name, rows=header.num_rows, bytes=size, sha256=sha256, **counted)


def _pieces(task: PackTask) -> Iterator[list[SequenceRows]]:
    """Yield the shard's sequences, masked, in parts that are packed together; equal whenever they are asked for."""
    parts = _masked_parts(task)
    while piece := list(itertools.islice(parts, _PARTS_PLANNED)):
        yield piece
        piece.clear()  # who asked for it has it still: the next would come on top


def _masked_parts(task: PackTask) -> Iterator[SequenceRows]:
    number = task.first_number
    for part in read_parts(read_header(task.source)):
        if task.policy is None:
            yield part
        else:
            keys = sample_keys(task.seed, 0, number + np.arange(len(part.lengths)))
            yield mask_rows(part, keys, task.frame, task.policy)
        number += len(part.lengths)


def _blocks(task: PackTask, plans: list[RowPlan]) -> Iterator[Block]:
    for piece, plan in zip(_pieces(task), plans, strict=True):
        order = np.argsort(plan.rows, kind="stable")
        edges = np.searchsorted(plan.rows[order], np.arange(0, plan.num_rows + _ROWS_AT_ONCE, _ROWS_AT_ONCE))
        for number, (start, stop) in enumerate(itertools.pairwise(edges.tolist())):
            chosen = order[start:stop]
            rows = plan.rows[chosen].astype(np.int64) - number * _ROWS_AT_ONCE
            yield Block(_taken(piece, chosen), rows, plan.slots[chosen].astype(np.int64))


def _taken(parts: list[SequenceRows], chosen: np.ndarray) -> SequenceRows:
    """Gather sequences by their numbers in all parts together, int64 (k,); only those are copied."""
    ends = np.cumsum([len(part.lengths) for part in parts])
    owners = np.searchsorted(ends, chosen, side="right")
    starts = (ends - [len(part.lengths) for part in parts])[owners]
    found = [_rows(part, (chosen - starts)[owners == owner]) for owner, part in enumerate(parts)]
    back = np.empty(len(chosen), np.int64)
    back[np.argsort(owners, kind="stable")] = np.arange(len(chosen))
    return _rows(_joined(found), back)


def _rows(rows: SequenceRows, chosen: np.ndarray) -> SequenceRows:
    labels = None if rows.next_sentence_labels is None else rows.next_sentence_labels[chosen]
    masks = StaticMasks(*(column[chosen] for column in _masks(rows)))
    return SequenceRows(rows.input_ids[chosen], rows.lengths[chosen], rows.segment_b_starts[chosen], labels, masks)


def _joined(parts: list[SequenceRows]) -> SequenceRows:
    labels = [part.next_sentence_labels for part in parts if part.next_sentence_labels is not None]
    return SequenceRows(
        np.concatenate([part.input_ids for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.segment_b_starts for part in parts]),
        np.concatenate(labels) if labels else None,
        StaticMasks(*(np.concatenate(columns) for columns in zip(*map(_masks, parts), strict=True))),
    )


def _masks(part: SequenceRows) -> StaticMasks:
    assert part.static_masks is not None
    return part.static_masks
