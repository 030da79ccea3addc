"""Packed tokens as rows of one padded tensor and back, for attention that wants them so."""
# B sequences, S the longest of them, T packed tokens, Q of which are queries, S_q their columns, N heads, D head size

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bert_pytorch.models.patterns import Pattern
from bert_pytorch.runtime.device import to_device


class PaddedRows(NamedTuple):
    """Where packed vectors lie in a padded (B, S)."""

    batch_size: int
    """B."""
    length: int
    """S, columns of a row."""
    places: Tensor | None
    """int64 (T,), each vector's place in the flattened (B * S) layout; None where every place is taken, in order."""

    def pad(self, heads: Tensor) -> Tensor:
        """Spread (T, N, D) to (B, N, S, D), zero where nothing lies."""
        padded = heads if self.places is None else _ToRows.apply(heads, self.places, self.batch_size * self.length)
        return padded.view(self.batch_size, self.length, *heads.shape[1:]).transpose(1, 2)

    def unpad(self, attended: Tensor) -> Tensor:
        """Turn (B, N, S, D) into (T, N * D)."""
        flat = attended.transpose(1, 2).flatten(2).flatten(0, 1)  # (B * S, N * D)
        return flat if self.places is None else _FromRows.apply(flat, self.places)


class PaddedLayout(NamedTuple):
    """Where the tokens of a packed batch lie in a padded one: as keys all of them, as queries all or some."""

    keys: PaddedRows
    queries: PaddedRows
    key_mask: Tensor | None
    """bool (B, 1, 1, S), True for real tokens; None where all are."""
    query_positions: Tensor | None
    """int64 (B, S_q), each query's position in its sequence; None where column j is position j."""
    masks: dict[tuple[Pattern, torch.dtype], Tensor | None]
    """Masks made so far for this batch."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "PaddedLayout":
        """Compute the layout on the host and copy it to the device."""
        batch_size, longest = len(lengths), max(lengths, default=0)
        if all(length == longest for length in lengths):
            rows = PaddedRows(batch_size, longest, None)
            return cls(rows, rows, None, None, {})
        real = torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)  # (B, S)
        places = real.flatten().nonzero().squeeze(1)
        rows = PaddedRows(batch_size, longest, to_device(places, device))
        return cls(rows, rows, to_device(real, device)[:, None, None, :], None, {})

    def narrowed(self, cu_seqlens: Tensor, queries: Tensor) -> "PaddedLayout":
        """Return the layout in which only the tokens `queries`, int64 (Q,) in rising order, ask.

        The host learns nothing of where they are: there is room for every token of the longest sequence and one
        asked for twice.
        """
        starts, columns = cu_seqlens[:-1].long(), -(-(self.keys.length + 1) // 8) * 8
        sequence = torch.searchsorted(cu_seqlens[1:].long(), queries, right=True)
        rank = torch.arange(len(queries), device=queries.device) - torch.searchsorted(queries, starts)[sequence]
        places = sequence * columns + rank
        rows = PaddedRows(self.keys.batch_size, columns, places)
        # Columns without a query stand at position 0, which is a key of every sequence: no softmax over nothing.
        positions = queries.new_zeros(rows.batch_size * columns).index_copy_(0, places, queries - starts[sequence])
        return PaddedLayout(self.keys, rows, self.key_mask, positions.view(-1, columns), {})

    def mask(self, pattern: Pattern, query: Tensor) -> Tensor | None:
        """Return bool of what `query` sees or what is added to its scores, broadcastable to (B, N, S_q, S), or None."""
        if pattern.is_full:
            return self.key_mask
        known = pattern, query.dtype
        if known not in self.masks:
            self.masks[known] = pattern.mask(self._distances(query.device), self.key_mask, query.dtype)
        return self.masks[known]

    def _distances(self, device: torch.device) -> Tensor:
        columns = torch.arange(self.keys.length, device=device)
        positions = columns.unsqueeze(0) if self.query_positions is None else self.query_positions
        if self.query_positions is None and self.key_mask is not None:
            # Columns past a sequence's end ask from its last token: a window there would hold no key.
            positions = torch.minimum(positions, self.key_mask[:, 0, 0].sum(1, keepdim=True) - 1)
        return (positions.unsqueeze(2) - columns).abs()


class _ToRows(torch.autograd.Function):
    """Spread rows over a zero tensor.  Both directions are plain copies: autograd would add, with atomics on a GPU."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, rows: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(rows)
        return source.new_zeros(size, *source.shape[1:]).index_copy_(0, rows, source)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return grad.index_select(0, rows), None, None


class _FromRows(torch.autograd.Function):
    """Collect rows: the inverse of `_ToRows`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.size = source.shape[0]
        return source.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return grad.new_zeros(ctx.size, *grad.shape[1:]).index_copy_(0, rows, grad), None
