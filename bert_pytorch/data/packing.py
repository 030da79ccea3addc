"""From padded rows to packed micro-batches: real tokens only, T of them, with where each sequence starts.

Letters as in `records`: n rows of length L become B = n sequences of T tokens together.
"""

from typing import NamedTuple

import numpy as np

from bert_pytorch.data.masking import MaskingPolicy, mask_tokens
from bert_pytorch.records import MicroBatch, SequenceRows


class PackedRows(NamedTuple):
    """Rows without their padding, before masking."""

    input_ids: np.ndarray
    """int32 (T,)."""
    token_type_ids: np.ndarray
    """int32 (T,)."""
    position_ids: np.ndarray
    """int32 (T,)."""
    cu_seqlens: np.ndarray
    """int32 (B + 1,)."""


def pack_rows(rows: SequenceRows) -> PackedRows:
    """Drop the padding of rows and lay their tokens end to end."""
    count, length = rows.input_ids.shape
    narrow = np.min_scalar_type(length)  # one or two bytes: the comparison is bound by memory
    real = np.arange(length, dtype=narrow) < rows.lengths.astype(narrow)[:, None]  # (n, L)
    cu_seqlens = np.zeros(count + 1, dtype=np.int32)
    np.cumsum(rows.lengths, out=cu_seqlens[1:])
    position_ids = np.arange(cu_seqlens[-1], dtype=np.int32)
    position_ids -= np.repeat(cu_seqlens[:-1], rows.lengths)
    segments = np.stack([rows.segment_b_starts, rows.lengths - rows.segment_b_starts], axis=1)
    return PackedRows(
        input_ids=rows.input_ids[real],
        token_type_ids=np.repeat(np.tile(np.array([0, 1], np.int32), count), segments.ravel()),
        position_ids=position_ids,
        cu_seqlens=cu_seqlens,
    )


def masked_batch(
    rows: SequenceRows,
    keys: np.ndarray,
    policy: MaskingPolicy | None,
    is_special: np.ndarray,
    *,
    next_sentence: bool,
) -> MicroBatch:
    """Pack rows and mask them: dynamically by `policy`, or with the masks that static rows bring along.

    Args:
        rows: the rows of one micro-batch; none is a valid choice.
        keys: uint64 (n,), randomness of each row (`masking.sample_keys`).
        policy: how to mask; None where `rows.static_masks` says it all.
        is_special: bool (V,), whether a token id is [CLS], [SEP], [PAD] or [MASK], which are never masked.
        next_sentence: whether the model learns from next-sentence labels.
    """
    packed = pack_rows(rows)
    if policy is None:
        assert rows.static_masks is not None
        input_ids = packed.input_ids
        used = np.arange(rows.static_masks.positions.shape[1]) < rows.static_masks.counts[:, None]  # (n, P)
        positions = (packed.cu_seqlens[:-1, None] + rows.static_masks.positions)[used].astype(np.int64)
        labels = rows.static_masks.token_ids[used].astype(np.int64)
    else:
        maskable = _differing(packed.input_ids, np.flatnonzero(is_special))
        input_ids, positions, labels, _ = mask_tokens(packed.input_ids, maskable, packed.cu_seqlens, keys, policy)
    pairs = rows.next_sentence_labels if next_sentence else None
    return MicroBatch(
        input_ids=input_ids,
        token_type_ids=packed.token_type_ids,
        position_ids=packed.position_ids,
        cu_seqlens=packed.cu_seqlens,
        masked_positions=positions,
        labels=labels,
        next_sentence_labels=None if pairs is None else pairs.astype(np.int64),
    )


def join_batches(batches: list[MicroBatch]) -> MicroBatch:
    """Lay packed batches end to end; all have next-sentence labels or none has."""
    sizes = [batch.num_tokens for batch in batches]
    starts = np.cumsum([0, *sizes[:-1]])
    ends = [batch.cu_seqlens[1:] + start for batch, start in zip(batches, starts, strict=True)]
    masked = [batch.masked_positions + start for batch, start in zip(batches, starts, strict=True)]
    labels = [batch.next_sentence_labels for batch in batches if batch.next_sentence_labels is not None]
    return MicroBatch(
        input_ids=np.concatenate([batch.input_ids for batch in batches]),
        token_type_ids=np.concatenate([batch.token_type_ids for batch in batches]),
        position_ids=np.concatenate([batch.position_ids for batch in batches]),
        cu_seqlens=np.concatenate([np.zeros(1, np.int64), *ends]).astype(np.int32),
        masked_positions=np.concatenate(masked),
        labels=np.concatenate([batch.labels for batch in batches]),
        next_sentence_labels=np.concatenate(labels) if labels else None,
    )


def split_batch(batch: MicroBatch, sizes: list[int]) -> list[MicroBatch]:
    """Cut a packed batch into batches of so many sequences each; the inverse of `join_batches`.

    Args:
        batch: of as many sequences as `sizes` come to.
        sizes: sequences of each part.
    """
    edges = np.concatenate([[0], np.cumsum(sizes)])
    tokens = batch.cu_seqlens[edges]
    masked = np.searchsorted(batch.masked_positions, tokens)
    parts = []
    for number in range(len(sizes)):
        of_tokens = slice(tokens[number], tokens[number + 1])
        of_masked = slice(masked[number], masked[number + 1])
        sequences = slice(edges[number], edges[number + 1])
        pairs = batch.next_sentence_labels
        parts.append(
            MicroBatch(
                input_ids=batch.input_ids[of_tokens],
                token_type_ids=batch.token_type_ids[of_tokens],
                position_ids=batch.position_ids[of_tokens],
                cu_seqlens=batch.cu_seqlens[edges[number] : edges[number + 1] + 1] - tokens[number],
                masked_positions=batch.masked_positions[of_masked] - tokens[number],
                labels=batch.labels[of_masked],
                next_sentence_labels=None if pairs is None else pairs[sequences],
            )
        )
    return parts


def _differing(input_ids: np.ndarray, special: np.ndarray) -> np.ndarray:
    """Return where no special token stands, bool (T,); there are few, and comparing is faster than looking up."""
    differs = np.ones(len(input_ids), bool)
    for token in special.tolist():
        differs &= input_ids != token
    return differs
