"""Attention within each sequence of a packed batch, written out sequence by sequence in plain torch."""
# T packed tokens, Q queries (T of them unless only some tokens ask), B sequences, N heads, D head size

from typing import NamedTuple

import torch
from torch import Tensor


class Sequences(NamedTuple):
    """Where the queries and the keys of each sequence lie."""

    cu_queries: Tensor
    """int32 (B + 1,), where each sequence's queries begin; the last entry is Q.  Sequences may be empty."""
    cu_keys: Tensor
    """int32 (B + 1,), the same of keys and values; the last entry is T."""
    max_queries: int
    """At least the most queries of a sequence; known to the host, so that nothing waits for the device."""
    max_keys: int
    """At least the length of the longest sequence."""
    query_positions: Tensor | None = None
    """int32 (Q,), each query's place in its sequence; None where every token asks."""


class Bias(NamedTuple):
    """What is added to scores besides the product of query and key."""

    slopes: Tensor | None = None
    """float32 (N,): minus slope * |i - j| (ALiBi, Press et al. 2022, both ways as in MosaicBERT); None for none."""
    window: int | None = None
    """Tokens further away than this are not seen; None for no limit."""


def attention_reference(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, bias: Bias) -> Tensor:
    """Attend (Vaswani et al. 2017, eq. 1) in at least float32.

    Args:
        query: (Q, N, D).
        key: (T, N, D).
        value: (T, N, D).
        sequences: of the batch; read by the host.
        bias: on the scores.

    Returns:
        (Q, N, D) in the dtype of `query`.
    """
    wide = torch.promote_types(query.dtype, torch.float32)
    queries, keys = (edges.diff().tolist() for edges in (sequences.cu_queries, sequences.cu_keys))
    places = sequences.query_positions
    parts = []
    for index, (q, k, v) in enumerate(zip(query.split(queries), key.split(keys), value.split(keys), strict=True)):
        q, k, v = (part.to(wide).transpose(0, 1) for part in (q, k, v))  # (N, queries or keys, D)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        positions = torch.arange(keys[index], device=key.device)
        asking = positions if places is None else places.split(queries)[index]
        distance = (asking[:, None] - positions).abs()
        if bias.slopes is not None:
            scores = scores - bias.slopes.to(wide)[:, None, None] * distance
        if bias.window is not None:
            scores = scores.masked_fill(distance > bias.window, -torch.inf)
        parts.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(parts).to(query.dtype)
