"""Which tokens' last hidden states the pretraining losses read: masked ones, and the first of each sequence."""

from typing import NamedTuple

import torch
from torch import Tensor

from bert_pytorch.models.inputs import PackedBatch


class WantedTokens(NamedTuple):
    """Tokens in rising order, and where in that list each use finds its own."""

    tokens: Tensor | None
    """int64 (Q,), indices into T; a masked first token stands twice.  None: all tokens, T of them."""
    masked: Tensor
    """int64 (M,), the rows of `masked_positions` among them."""
    firsts: Tensor | None
    """int64 (B,), the rows of the sequences' first tokens; None where no loss reads those."""

    @classmethod
    def of(cls, batch: PackedBatch, *, with_firsts: bool, everywhere: bool = False) -> "WantedTokens":
        """Sort them out on the device; their number is M or B + M, so that the host waits for nothing.

        Args:
            batch: any; a slot without a sequence asks for whatever token.
            with_firsts: whether a loss reads the first token of each sequence.
            everywhere: whether a loss reads every token.
        """
        firsts = batch.cu_seqlens[:-1].long() if with_firsts else batch.masked_positions[:0]
        firsts = firsts.clamp(max=len(batch.input_ids) - 1)  # an empty slot may begin behind the last token
        if everywhere:
            return cls(None, batch.masked_positions, firsts if with_firsts else None)
        tokens, order = torch.cat([firsts, batch.masked_positions]).sort(stable=True)
        rows = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return cls(tokens, rows[len(firsts) :], rows[: len(firsts)] if with_firsts else None)
