"""Bidirectional attention within each sequence of a packed batch, in several ways that compute the same.

`choose_attention` names one; the model asks it once per batch for a plan (where the sequences lie) and then calls it in
every layer with that plan.  The last layer may ask for some tokens only: `Narrowing`.
"""
# B sequences, S the longest of them, T packed tokens, Q queries (T of them but in the last layer), N heads,
# D = H / N head size

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.errors import ConfigError
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.padding import PaddedLayout
from bert_pytorch.models.patterns import Pattern
from bert_pytorch.models.row_attention import RowSdpa
from bert_pytorch.models.sequence_attention import SequenceWiseSdpa

AttentionName = Literal["auto", "sdpa", "reference", "varlen", "flash_attn", "triton", "flex"]


class Attention(Protocol):
    """One way to compute attention."""

    name: str

    def plan(self, batch: PackedBatch) -> Any:
        """Prepare what all layers share for the sequences of a batch."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: Any, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend.

        Args:
            query: (Q, N, D), of all tokens or of those that `plan` was narrowed to.
            key: (T, N, D).
            value: (T, N, D).
            plan: what `plan` returned for this batch.
            pattern: of this layer: a window, ALiBi.
            dropout_p: probability of dropping an attention probability; 0 outside training.

        Returns:
            (Q, N * D), each query's mixture of the values of its own sequence.
        """


@runtime_checkable
class Narrowing(Protocol):
    """Attention that can compute the outputs of some tokens only."""

    def narrowed(self, plan: Any, batch: PackedBatch, queries: Tensor) -> Any:
        """Return the plan for the queries of some tokens.

        Args:
            plan: of this batch, for all tokens.
            batch: without `row_length`.
            queries: int64 (Q,), the tokens in rising order; one may stand twice.
        """


class ChosenAttention(NamedTuple):
    """An attention and why it is used, for the log."""

    attention: Attention
    reason: str


def choose_attention(
    name: AttentionName, device: torch.device, dropout_p: float, *, fixed_rows: bool = False
) -> ChosenAttention:
    """Choose how attention is computed without a CUDA GPU (`models.attention_choice` knows those).

    Args:
        name: `auto`, or the way a person asked for.
        device: where the model computes.
        dropout_p: dropout on attention probabilities; above 0 it rules out fused kernels on CPUs.
        fixed_rows: whether batches come in rows of fixed length, whose shapes must not depend on what is in them.

    Raises:
        ConfigError: if it asks for what runs on CUDA GPUs only.
    """
    if name not in ("auto", "sdpa", "reference"):
        raise ConfigError("--attention", [f"{name} needs a CUDA GPU, found {device.type}; leave it out, or take sdpa."])
    if name == "reference":
        return ChosenAttention(ReferenceAttention(), "asked for")
    attention: Attention
    if fixed_rows:
        attention, reason = RowSdpa(), "rows of fixed length in one call, all shapes fixed"
    else:
        attention = SequenceWiseSdpa() if device.type == "cpu" else PaddedSdpa()
        reason = f"the fastest here on {device.type}"
    if name == "sdpa":
        reason = "asked for"
    if dropout_p:
        reason += f"; attention_probs_dropout_prob {dropout_p} costs speed, 0 allows the fastest kernels"
    return ChosenAttention(attention, reason)


class _OnPaddedRows:
    """Sequences as rows of one padded tensor."""

    def plan(self, batch: PackedBatch) -> PaddedLayout:
        """Lay the sequences out."""
        return PaddedLayout.of(batch.lengths, batch.input_ids.device)

    def narrowed(self, plan: PaddedLayout, batch: PackedBatch, queries: Tensor) -> PaddedLayout:
        """Lay some tokens out as queries."""
        return plan.narrowed(batch.cu_seqlens, queries)


class ReferenceAttention(_OnPaddedRows):
    """The formula written out on padded tensors (Vaswani et al. 2017, eq. 1): slow, in any precision."""

    name = "reference"

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: PaddedLayout, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend with an explicit softmax."""
        query, key, value = plan.queries.pad(query), plan.keys.pad(key), plan.keys.pad(value)
        scores = query @ key.mT / query.shape[-1] ** 0.5  # (B, N, S_q, S)
        mask = plan.mask(pattern, query)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        probabilities = F.dropout(scores.softmax(-1), dropout_p) if dropout_p else scores.softmax(-1)
        return plan.queries.unpad(probabilities @ value)


class PaddedSdpa(_OnPaddedRows):
    """Torch's fused attention on padded tensors: one call for all sequences, as a GPU wants it."""

    name = "sdpa"

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: PaddedLayout, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend in one fused call."""
        query, key, value = plan.queries.pad(query), plan.keys.pad(key), plan.keys.pad(value)
        mask = plan.mask(pattern, query)
        return plan.queries.unpad(
            F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout_p)
        )
