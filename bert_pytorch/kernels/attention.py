"""Attention within each sequence of a packed batch, written out sequence by sequence in plain torch."""
# T packed tokens, B sequences, N heads, D head size, S the length of one sequence

from typing import NamedTuple

import torch
from torch import Tensor


class Sequences(NamedTuple):
    """Where the sequences of a packed batch lie."""

    cu_seqlens: Tensor
    """int32 (B + 1,), where each begins; the last entry is T.  Sequences may be empty."""
    max_seqlen: int
    """At least the length of the longest; known to the host, so that nothing waits for the device."""


class Bias(NamedTuple):
    """What is added to scores besides the product of query and key."""

    alibi_slopes: Tensor | None = None
    """float32 (N,): minus slope * |i - j| (Press et al. 2022, both ways as in MosaicBERT); None for none."""
    window: int | None = None
    """Tokens further away than this are not seen; None for no limit."""


def attention_reference(qkv: Tensor, sequences: Sequences, bias: Bias) -> Tensor:
    """Attend (Vaswani et al. 2017, eq. 1) in at least float32.

    Args:
        qkv: (T, 3, N, D), queries, keys and values.
        sequences: of the batch; read by the host.
        bias: on the scores.

    Returns:
        (T, N, D) in the dtype of `qkv`.
    """
    wide = torch.promote_types(qkv.dtype, torch.float32)
    parts = []
    for sequence in qkv.to(wide).split(sequences.cu_seqlens.diff().tolist()):
        query, key, value = sequence.permute(1, 2, 0, 3)  # (N, S, D) each
        scores = query @ key.mT / query.shape[-1] ** 0.5
        positions = torch.arange(len(sequence), device=qkv.device)
        distance = (positions[:, None] - positions).abs()
        if bias.alibi_slopes is not None:
            scores = scores - bias.alibi_slopes.to(wide)[:, None, None] * distance
        if bias.window is not None:
            scores = scores.masked_fill(distance > bias.window, -torch.inf)
        parts.append((scores.softmax(-1) @ value).transpose(0, 1))
    return torch.cat(parts).to(qkv.dtype)
