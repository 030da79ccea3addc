"""Random packed batches, and the same sequences padded as other implementations want them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.records import MicroBatch

IGNORED = -100


def small_config(**changes: object) -> ModelConfig:
    """Make a model of 2 layers and 4 heads whose vocabulary (203) is no multiple of 8; without dropout."""
    values: dict[str, object] = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 40,
        "vocab_size": 203,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.2,  # large enough that attention is far from uniform
    }
    return ModelConfig.model_validate(values | changes)


def random_micro_batch(
    lengths: Sequence[int], vocab_size: int = 203, *, pairs: bool = True, seed: int = 0, masked_fraction: float = 0.2
) -> MicroBatch:
    """Make sequences of these lengths; B begins half-way, every fifth token or so is masked."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    positions = [np.arange(length) for length in lengths]
    masked = np.flatnonzero(rng.random(total) < masked_fraction)
    return MicroBatch(
        input_ids=rng.integers(0, vocab_size, total).astype(np.int32),
        token_type_ids=np.concatenate([position >= len(position) // 2 for position in positions]).astype(np.int32),
        position_ids=np.concatenate(positions).astype(np.int32),
        cu_seqlens=np.cumsum([0, *lengths]).astype(np.int32),
        masked_positions=masked,
        labels=rng.integers(0, vocab_size, len(masked)),
        next_sentence_labels=rng.integers(0, 2, len(lengths)) if pairs else None,
    )


def random_batch(lengths: Sequence[int], vocab_size: int = 203, *, pairs: bool = True, seed: int = 0) -> PackedBatch:
    """Make a packed batch on the CPU."""
    return PackedBatch.from_numpy(random_micro_batch(lengths, vocab_size, pairs=pairs, seed=seed), "cpu")


class PaddedBatch(NamedTuple):
    """The same sequences as rows (B, S)."""

    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    """IGNORED where not masked."""
    real: Tensor
    """bool (B, S)."""


def padded(batch: PackedBatch) -> PaddedBatch:
    """Pad by a loop over sequences, written for plainness."""
    size = (len(batch.lengths), max(batch.lengths))
    all_labels = torch.full_like(batch.input_ids, IGNORED, dtype=torch.long)
    all_labels[batch.masked_positions] = batch.labels
    result = PaddedBatch(
        *(torch.zeros(size, dtype=torch.long) for _ in range(3)),
        torch.full(size, IGNORED),
        torch.zeros(size, dtype=torch.bool),
    )
    for row, length in enumerate(batch.lengths):
        tokens = slice(int(batch.cu_seqlens[row]), int(batch.cu_seqlens[row + 1]))
        result.input_ids[row, :length] = batch.input_ids[tokens]
        result.token_type_ids[row, :length] = batch.token_type_ids[tokens]
        result.attention_mask[row, :length] = 1
        result.labels[row, :length] = all_labels[tokens]
        result.real[row, :length] = True
    return result
