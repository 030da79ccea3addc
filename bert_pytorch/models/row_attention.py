"""Attention whose shapes never change: for batches that come in rows of fixed length."""
# R rows of L tokens, T = R * L, N heads, D head size

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.patterns import Pattern


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
