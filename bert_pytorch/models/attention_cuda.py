"""Attention on packed batches as they are, without padding: for CUDA, and for a CPU where a test says so."""
# T packed tokens, Q queries (T of them but in the last layer), B sequences, N heads, D head size

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from bert_pytorch.kernels import flash
from bert_pytorch.kernels.attention import Bias, Sequences
from bert_pytorch.models.attention import PaddedSdpa
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.padding import PaddedLayout
from bert_pytorch.models.patterns import Pattern
from bert_pytorch.runtime.device import to_device


class PackedPlan(NamedTuple):
    """Where the queries and keys of a batch lie, and what its layers have made of it so far."""

    batch: PackedBatch
    queries: Tensor | None
    """int64 (Q,), the tokens that ask; None: all."""
    sequences: Sequences
    made: dict[Any, Any]
    """Biases, masks and layouts made so far for this batch, by pattern."""

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` returned the first time that `key` was asked for."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def bias(self, pattern: Pattern) -> Bias:
        """Return a pattern as kernels take it."""
        return self.once(("bias", pattern), lambda: _bias(pattern, self.batch.input_ids.device))


class _OnPackedTokens:
    """Sequences where they lie; nothing is moved and the host waits for nothing."""

    def plan(self, batch: PackedBatch) -> PackedPlan:
        """Take `cu_seqlens` as they are; rows of fixed length need not know how long their sequences are."""
        longest = batch.max_seqlen if batch.row_length is None else batch.row_length
        return PackedPlan(batch, None, Sequences(batch.cu_seqlens, batch.cu_seqlens, longest, longest), {})

    def narrowed(self, plan: PackedPlan, batch: PackedBatch, queries: Tensor) -> PackedPlan:
        """Count the queries of each sequence on the device."""
        cu_queries = torch.searchsorted(queries, batch.cu_seqlens.long()).int()
        positions = batch.position_ids.index_select(0, queries)
        most = plan.sequences.max_queries + 1  # one token may stand twice
        return plan._replace(
            queries=queries,
            sequences=plan.sequences._replace(cu_queries=cu_queries, max_queries=most, query_positions=positions),
            made={},
        )


class TritonAttention(_OnPackedTokens):
    """Our kernels for sequences of a few tiles (`kernels.triton_attention`): windows and ALiBi, no dropout."""

    name = "triton"

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: PackedPlan, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend."""
        from bert_pytorch.kernels.triton_attention import attention  # Triton is not everywhere

        assert not dropout_p, "chosen for models without attention dropout"
        return attention(query, key, value, plan.sequences, plan.bias(pattern)).flatten(1)


class VarlenAttention(_OnPackedTokens):
    """Torch's FlashAttention on packed sequences: windows, no ALiBi, no dropout, 16-bit numbers."""

    name = "varlen"

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: PackedPlan, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend."""
        assert pattern.slopes is None, "chosen for models without ALiBi"
        assert not dropout_p, "chosen for models without attention dropout"
        if _counts_from_the_end(plan, pattern):
            return _padded(query, key, value, plan, pattern, dropout_p)
        return flash.varlen(query, key, value, plan.sequences, pattern.window).flatten(1)


class FlashAttnAttention(_OnPackedTokens):
    """The flash-attn package: windows, ALiBi and dropout, 16-bit numbers."""

    name = "flash_attn"

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: PackedPlan, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend."""
        if _counts_from_the_end(plan, pattern):
            return _padded(query, key, value, plan, pattern, dropout_p)
        return flash.flash_attn(query, key, value, plan.sequences, plan.bias(pattern), dropout_p).flatten(1)


class FlexAttention(_OnPackedTokens):
    """FlexAttention on all tokens at once under a mask of blocks: windows and ALiBi, no dropout, any precision.

    Compiled on CUDA, once for any number of tokens; a first step takes the compiler's time.
    """

    name = "flex"

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, plan: PackedPlan, pattern: Pattern, dropout_p: float
    ) -> Tensor:
        """Attend."""
        assert not dropout_p, "chosen for models without attention dropout"
        masks, scores = plan.once(("flex", pattern), lambda: _flex_parts(plan, pattern, len(query), len(key)))
        attend, _ = _flex_functions(query.device.type)
        q, k, v = (heads.transpose(0, 1).unsqueeze(0) for heads in (query, key, value))  # (1, N, tokens, D)
        attended: Tensor = attend(q, k, v, score_mod=scores, block_mask=masks)
        return attended.squeeze(0).transpose(0, 1).flatten(1)


def _bias(pattern: Pattern, device: torch.device) -> Bias:
    slopes = None
    if pattern.slopes is not None:
        slopes = to_device(torch.tensor(pattern.slopes, dtype=torch.float32), device)
    return Bias(slopes, pattern.window)


def _counts_from_the_end(plan: PackedPlan, pattern: Pattern) -> bool:
    """Whether FlashAttention would take the last query for the last token although other tokens ask.

    Without window and ALiBi a query's place does not matter.
    """
    return plan.queries is not None and not pattern.is_full


def _padded(query: Tensor, key: Tensor, value: Tensor, plan: PackedPlan, pattern: Pattern, dropout_p: float) -> Tensor:
    def lay_out() -> PaddedLayout:
        assert plan.queries is not None
        layout = PaddedLayout.of(plan.batch.lengths, query.device)
        return layout.narrowed(plan.batch.cu_seqlens, plan.queries)

    return PaddedSdpa()(query, key, value, plan.once("padded", lay_out), pattern, dropout_p)


@cache
def _flex_functions(device_type: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return FlexAttention and what makes its masks, compiled on CUDA, where they are of no use otherwise."""
    if device_type != "cuda":
        return flex_attention, create_block_mask
    return torch.compile(flex_attention, dynamic=True), torch.compile(create_block_mask, dynamic=True)


def _flex_parts(
    plan: PackedPlan, pattern: Pattern, queries: int, keys: int
) -> tuple[BlockMask, Callable[..., Tensor] | None]:
    """Return the mask of blocks and what changes scores: tokens see their own sequence, as the pattern says."""
    key_owner, key_place = _owners(plan.batch.cu_seqlens, keys), plan.batch.position_ids
    query_owner, query_place = key_owner, key_place
    if plan.queries is not None:
        query_owner, query_place = key_owner.index_select(0, plan.queries), key_place.index_select(0, plan.queries)
    window, slopes = pattern.window, plan.bias(pattern).slopes

    def distance(query: Tensor, key: Tensor) -> Tensor:
        return (query_place[query] - key_place[key]).abs()

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = query_owner[query] == key_owner[key]
        return same if window is None else same & (distance(query, key) <= window)

    def lowered(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        assert slopes is not None
        return score - slopes[head] * distance(query, key)

    _, make_mask = _flex_functions(key_place.device.type)
    mask = make_mask(seen, None, None, queries, keys, device=key_place.device)
    return mask, None if slopes is None else lowered


def _owners(cu_seqlens: Tensor, tokens: int) -> Tensor:
    """Return int32 (T,), the number of each token's sequence, computed on its device."""
    places = torch.arange(tokens, dtype=torch.int32, device=cu_seqlens.device)
    return torch.searchsorted(cu_seqlens[1:].contiguous(), places, right=True).int()
