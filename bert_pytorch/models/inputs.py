"""A packed batch as tensors: what a model reads (`data` makes the NumPy `MicroBatch`, training moves it here)."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.device import to_device


class PackedBatch(NamedTuple):
    """B sequences laid end to end, T tokens together, M of them masked.

    Without `row_length` nothing is padding.  With it every size is fixed: slots of `cu_seqlens` may be empty, the last
    one of each row is its padding, and what is no label is `IGNORED_LABEL`.
    """

    input_ids: Tensor
    """int32 (T,)."""
    token_type_ids: Tensor
    """int32 (T,), the segment of each token."""
    position_ids: Tensor
    """int32 (T,), restarting at 0 with every sequence."""
    cu_seqlens: Tensor
    """int32 (B + 1,), where each sequence starts; the last entry is T."""
    masked_positions: Tensor
    """int64 (M,), indices into T."""
    labels: Tensor
    """int64 (M,), the original tokens at `masked_positions`; `IGNORED_LABEL` counts nowhere."""
    next_sentence_labels: Tensor | None
    """int64 (B,), 1 = random next, `IGNORED_LABEL` = no label; None without the next-sentence task."""
    lengths: tuple[int, ...]
    """Length of each sequence, kept on the host so that no step waits for the device to learn its shapes.  Fixed rows:
    of each slot that is not empty; what shall run with fixed shapes does not look at them."""
    row_length: int | None = None
    """Tokens of a row, of which T is a multiple and which no sequence crosses; None without rows."""
    stands_in: bool = False
    """Whether nothing in it counts: a packed batch of a rank that has no sequence and takes part."""

    @property
    def max_seqlen(self) -> int:
        """Length of the longest sequence."""
        return max(self.lengths, default=0)

    @property
    def real_tokens(self) -> Tensor | None:
        """Which tokens are no padding, bool (T,); None where all are."""
        if self.row_length is None:
            return torch.zeros_like(self.input_ids, dtype=torch.bool) if self.stands_in else None
        rows = len(self.input_ids) // self.row_length
        slots = (len(self.cu_seqlens) - 1) // rows
        padding_starts = self.cu_seqlens[slots - 1 :: slots].unsqueeze(1)  # the last slot of each row
        places = torch.arange(len(self.input_ids), device=self.input_ids.device).view(rows, self.row_length)
        return (places < padding_starts).view(-1)

    @property
    def first_tokens(self) -> Tensor:
        """Where each sequence begins, int64 (B,); some token or other for an empty slot."""
        firsts = self.cu_seqlens[:-1].long()
        return firsts if self.row_length is None else firsts.clamp(max=len(self.input_ids) - 1)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return its tensors in their order: what a recorded computation is given anew each time."""
        return tuple(value for value in self if isinstance(value, Tensor))

    def with_tensors(self, tensors: Iterable[Tensor]) -> Self:
        """Return a batch of the same form of other tensors, without `lengths`, which only the host would know."""
        values = iter(tensors)
        fields = (next(values) if isinstance(value, Tensor) else value for value in self)
        return type(self)._make(fields)._replace(lengths=())

    @classmethod
    def from_numpy(cls, batch: MicroBatch, device: torch.device | str) -> Self:
        """Move a micro-batch to `device`; the host does not wait for it."""

        def move(array: np.ndarray) -> Tensor:
            return to_device(torch.from_numpy(array), torch.device(device))

        labels = batch.next_sentence_labels
        return cls(
            input_ids=move(batch.input_ids),
            token_type_ids=move(batch.token_type_ids),
            position_ids=move(batch.position_ids),
            cu_seqlens=move(batch.cu_seqlens),
            masked_positions=move(batch.masked_positions),
            labels=move(batch.labels),
            next_sentence_labels=None if labels is None else move(labels),
            lengths=tuple(length for length in np.diff(batch.cu_seqlens).tolist() if length),
            row_length=batch.row_length,
            stands_in=batch.row_length is None and batch.num_sequences == 0,
        )
