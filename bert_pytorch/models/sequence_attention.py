"""Attention sequence by sequence, as a CPU wants it; long sequences under a window block by block."""
# T packed tokens, Q queries, S tokens of a sequence, N heads, D head size; C blocks of W tokens, W the window

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.kernels.cpu import takes_cpu_kernels
from bert_pytorch.kernels.cpu_attention import LONGEST, short_attention
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.patterns import Pattern

BLOCKS_FROM = 7
"""Sequences longer than so many windows are cut into blocks.

With 12 heads of 64 and a window of 64, forward and backward, on one core, whole and in blocks: 19 and 21 ms at length
384, 33 and 28 at 512, 116 and 53 at 1024.
"""


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
    windows: dict[tuple[int, int], Tensor]
    """Masks of blocks made so far, by length and window."""

    def mask(self, index: int, pattern: Pattern, query: Tensor) -> Tensor | None:
        """Return the mask of one sequence, (1, N or 1, its queries, its keys), or None."""
        length = self.lengths[index]
        if pattern.is_full or (pattern.slopes is None and pattern.window is not None and length <= pattern.window + 1):
            return None
        if self.query_positions is not None:
            return _mask(self.query_positions[index], length, pattern, query)
        known = pattern, query.dtype
        if known not in self.masks:
            longest = max(self.lengths)
            self.masks[known] = _mask(torch.arange(longest, device=query.device), longest, pattern, query)
        return self.masks[known][:, :, :length, :length]

    def is_local(self, index: int, pattern: Pattern) -> bool:
        """Whether a sequence is long enough for its layer's window to be worth cutting it into blocks."""
        plain_window = pattern.window is not None and pattern.slopes is None and self.query_positions is None
        return plain_window and self.lengths[index] > BLOCKS_FROM * (pattern.window or 0)


def _mask(positions: Tensor, length: int, pattern: Pattern, query: Tensor) -> Tensor:
    keys = torch.arange(length, device=query.device)
    mask = pattern.mask((positions.unsqueeze(1) - keys).abs().unsqueeze(0), None, query.dtype)
    assert mask is not None
    return mask


class SequenceWiseSdpa:
    """Torch's fused attention, one call per sequence: no padding, no mask of padding, no copies.

    On 2 CPU cores, forward and backward, against one padded call: 1.3 to 1.6 times as fast at length 128 and 72 %
    fill, 2.4 to 2.7 times at length 512 and 50 % fill.
    """

    name = "sdpa"

    def plan(self, batch: PackedBatch) -> SequencePlan:
        """Keep the lengths: they are all that is needed."""
        lengths = list(batch.lengths)
        return SequencePlan(lengths, lengths, None, {}, {})

    def narrowed(self, plan: SequencePlan, batch: PackedBatch, queries: Tensor) -> SequencePlan:
        """Count the queries of each sequence; waits for the device, which here is the host."""
        edges = torch.searchsorted(queries, batch.cu_seqlens.long())
        counts = edges.diff().tolist()
        positions = [
            some - start for some, start in zip(queries.split(counts), batch.cu_seqlens[:-1].tolist(), strict=True)
        ]
        return SequencePlan(plan.lengths, counts, tuple(positions), {}, {})

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
            if plan.is_local(index, pattern):
                mixed.append(_in_blocks(*part, plan, pattern.window or 0, dropout_p))
                continue
            q, k, v = (tensor.transpose(0, 1).unsqueeze(0) for tensor in part)  # (1, N, queries or keys, D) each
            mask = plan.mask(index, pattern, query)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
            mixed.append(attended.squeeze(0).transpose(0, 1).flatten(1))
        return torch.cat(mixed)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, plan: SequencePlan, window: int, dropout_p: float) -> Tensor:
    """Attend within a window at a cost of 3 S W instead of S²: each block of W queries sees 3 W keys around it.

    Args:
        query: (S, N, D).
        key: (S, N, D).
        value: (S, N, D).
        plan: keeps the mask for other sequences of this length.
        window: W, how far a token sees to either side.
        dropout_p: of attention probabilities.

    Returns:
        (S, N * D).
    """
    length = len(query)
    spare = -length % window
    blocks = (length + spare) // window
    q = F.pad(query, (0, 0, 0, 0, 0, spare)).unflatten(0, (blocks, window)).transpose(1, 2)  # (C, N, W, D)
    k, v = (
        F.pad(part, (0, 0, 0, 0, window, spare + window)).unfold(0, 3 * window, window).transpose(2, 3)
        for part in (key, value)
    )  # (C, N, 3W, D)
    if (length, window) not in plan.windows:
        places = torch.arange(blocks * window, device=query.device).view(blocks, window, 1)
        keys = places[:, :1] - window + torch.arange(3 * window, device=query.device)  # (C, 1, 3W)
        seen = ((places - keys).abs() <= window) & (keys >= 0) & (keys < length)
        plan.windows[length, window] = seen.unsqueeze(1)
    mask = plan.windows[length, window]
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)[:length]
