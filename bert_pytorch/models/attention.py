"""Bidirectional attention within each sequence of a packed batch, in several ways that compute the same.

`choose_attention` names one; the model asks it once per batch for a plan (where the sequences lie) and then calls it in
every layer with that plan.  The last layer may ask for some tokens only: `Narrowing`.
"""
# B sequences, S the longest of them, T packed tokens, Q queries (T of them but in the last layer), N heads,
# D = H / N head size; R rows of L tokens where T = R * L

from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.kernels.choice import takes_cpu_kernels
from bert_pytorch.kernels.cpu_attention import LONGEST, short_attention
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.padding import PaddedLayout
from bert_pytorch.models.patterns import Pattern

AttentionName = Literal["auto", "sdpa", "reference"]


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
    """Choose how attention is computed.

    Args:
        name: `auto`, or the way a person asked for.
        device: where the model computes.
        dropout_p: dropout on attention probabilities; above 0 it rules out fused kernels on CPUs.
        fixed_rows: whether batches come in rows of fixed length, whose shapes must not depend on what is in them.
    """
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


class SequencePlan(NamedTuple):
    """How a batch is cut into sequences, on the host."""

    lengths: list[int]
    """Keys of each sequence."""
    query_counts: list[int]
    """Queries of each sequence."""
    query_positions: tuple[Tensor, ...] | None
    """int64 (queries,) for each sequence, their positions in it; None where all tokens ask."""
    masks: dict[tuple[Pattern, torch.dtype], Tensor]
    """Masks made so far for this batch, for a sequence as long as the longest."""

    def mask(self, index: int, pattern: Pattern, query: Tensor) -> Tensor | None:
        """Return the mask of one sequence, (1, N or 1, its queries, its keys), or None."""
        length = self.lengths[index]
        if pattern.is_full or (pattern.slopes is None and pattern.window is not None and length <= pattern.window + 1):
            return None
        known = pattern, query.dtype
        if known not in self.masks:
            positions = torch.arange(max(self.lengths), device=query.device)
            made = pattern.mask((positions.unsqueeze(1) - positions).abs().unsqueeze(0), None, query.dtype)
            assert made is not None
            self.masks[known] = made
        mask = self.masks[known][..., :length]
        if self.query_positions is None:
            return mask[:, :, :length]
        return mask.index_select(2, self.query_positions[index])


class SequenceWiseSdpa:
    """Torch's fused attention, one call per sequence: no padding, no mask of padding, no copies.

    On 2 CPU cores, forward and backward, against one padded call: 1.3 to 1.6 times as fast at length 128 and 72 %
    fill, 2.4 to 2.7 times at length 512 and 50 % fill.
    """

    name = "sdpa"

    def plan(self, batch: PackedBatch) -> SequencePlan:
        """Keep the lengths: they are all that is needed."""
        lengths = list(batch.lengths)
        return SequencePlan(lengths, lengths, None, {})

    def narrowed(self, plan: SequencePlan, batch: PackedBatch, queries: Tensor) -> SequencePlan:
        """Count the queries of each sequence; waits for the device, which here is the host."""
        edges = torch.searchsorted(queries, batch.cu_seqlens.long())
        counts = edges.diff().tolist()
        positions = [
            some - start for some, start in zip(queries.split(counts), batch.cu_seqlens[:-1].tolist(), strict=True)
        ]
        return SequencePlan(plan.lengths, counts, tuple(positions), plan.masks)

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: SequencePlan, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend sequence by sequence."""
        if not len(query):
            return torch.cat([query, key[:0], value[:0]]).flatten(1)  # all three get a gradient, of zeros
        short = len(key) <= LONGEST * len(plan.lengths)
        if short and pattern.is_full and not dropout_p and takes_cpu_kernels(query):
            return short_attention(query, key, value, plan.query_counts, plan.lengths)
        mixed = []
        parts = zip(query.split(plan.query_counts), key.split(plan.lengths), value.split(plan.lengths), strict=True)
        for index, part in enumerate(parts):
            if not len(part[0]):
                continue
            q, k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in part)  # (1, N, queries or keys, D) each
            mask = plan.mask(index, pattern, query)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
            mixed.append(attended.squeeze(0).transpose(0, 1).flatten(1))
        return torch.cat(mixed)


class RowPlan(NamedTuple):
    """Which tokens of a row of fixed length belong to one sequence."""

    same_sequence: Tensor
    """bool (R, 1, L, L), True within a sequence or the row's padding."""
    masks: dict[tuple[Pattern, torch.dtype], Tensor | None]
    """Masks made so far for this batch."""

    def mask(self, pattern: Pattern, query: Tensor) -> Tensor | None:
        """Return the mask, (R, N or 1, L, L)."""
        if pattern.is_full:
            return self.same_sequence
        known = pattern, query.dtype
        if known not in self.masks:
            columns = torch.arange(self.same_sequence.shape[-1], device=query.device)
            distances = (columns.unsqueeze(1) - columns).abs().unsqueeze(0)
            self.masks[known] = pattern.mask(distances, self.same_sequence, query.dtype)
        return self.masks[known]


class RowSdpa:
    """Torch's fused attention on rows of fixed length under a block-diagonal mask, for batches with `row_length`.

    One call whose shapes are always the same and whose values the host never asks for: a device may record it once.
    """

    name = "row_sdpa"

    def plan(self, batch: PackedBatch) -> RowPlan:
        """Compare every pair of tokens of a row."""
        assert batch.row_length is not None
        starts = batch.cu_seqlens[:-1].view(len(batch.input_ids) // batch.row_length, 1, -1)  # (R, 1, slots)
        tokens = torch.arange(len(batch.input_ids), device=starts.device).view(-1, batch.row_length, 1)
        slots = (tokens >= starts).sum(-1)  # (R, L), how many slots begin at or before each token
        return RowPlan((slots.unsqueeze(1) == slots.unsqueeze(2)).unsqueeze(1), {})

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: RowPlan, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend in one fused call."""
        rows, _, length, _ = plan.same_sequence.shape
        q, k, v = (
            tensor.unflatten(0, (rows, length)).transpose(1, 2) for tensor in (query, key, value)
        )  # (R, N, L, D)
        mask = plan.mask(pattern, query)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)
