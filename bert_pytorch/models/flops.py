"""Model FLOPs of a batch: what its sequences and masked tokens need by the formula, however it is computed.

Counted are matrix products, a multiplication and an addition as two; a backward pass is two forward passes.  Padding,
recomputed activations and scores of tokens that are not masked are nobody's need, and what an exact shortcut saves (a
last layer computed for masked tokens only) is not subtracted: rates of any implementation compare.  It is the
convention by which utilisation is quoted (Chowdhery et al. 2022, appendix B, with attention over real lengths).
"""
# T tokens, M masked ones, B sequences of lengths n; H hidden, I intermediate, L layers, V vocabulary

from typing import NamedTuple, Self

import numpy as np

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.size import GATED
from bert_pytorch.records import MicroBatch

FORWARD_AND_BACKWARD = 3
"""In forward passes: the backward pass has two products, for inputs and for weights, where the forward pass has one."""


class BatchWork(NamedTuple):
    """All that the FLOPs of a batch depend on, besides the model."""

    lengths: np.ndarray
    """int64 (B,), tokens of each real sequence."""
    num_masked: int
    """M."""

    @classmethod
    def of(cls, batch: MicroBatch) -> Self:
        """Read it off a micro-batch, on the host; empty slots and padding rows of fixed shapes do not count."""
        lengths = np.diff(batch.cu_seqlens).astype(np.int64)
        return cls(lengths if batch.is_sequence is None else lengths[batch.is_sequence], batch.num_masked)


class Product(NamedTuple):
    """Matrix products of one kind in a forward pass: (rows, inner) by (inner, columns), so many times."""

    name: str
    rows: int
    inner: int
    columns: int
    times: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Rows, inner, columns, times."""
        return self[1:]

    @property
    def flops(self) -> int:
        """Of all of them."""
        return 2 * self.rows * self.inner * self.columns * self.times


def training_flops(config: ModelConfig, work: BatchWork) -> int:
    """Return the model FLOPs of a forward and a backward pass."""
    return FORWARD_AND_BACKWARD * forward_flops(config, work)


def forward_flops(config: ModelConfig, work: BatchWork) -> int:
    """Return the model FLOPs of a forward pass, all that a teacher needs."""
    products = sum(product.flops for product in linear_products(config, int(work.lengths.sum()), work.num_masked))
    heads = _next_sentence_flops(config, len(work.lengths))
    return products + _attention_flops(config, work.lengths) + heads


def linear_products(config: ModelConfig, tokens: int, masked_tokens: int) -> list[Product]:
    """List the linear layers of a forward pass over T tokens, M of them masked; at their shapes a GEMM is measured."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return [
        Product("queries, keys, values", tokens, hidden, 3 * hidden, layers),
        Product("attention output", tokens, hidden, hidden, layers),
        Product("feed-forward up", tokens, hidden, 2 * inner if config.model_type in GATED else inner, layers),
        Product("feed-forward down", tokens, inner, hidden, layers),
        Product("masked-LM transform", masked_tokens, hidden, hidden, 1),
        Product("masked-LM decoder", masked_tokens, hidden, config.vocab_size, 1),
    ]


def _attention_flops(config: ModelConfig, lengths: np.ndarray) -> int:
    """Scores, then mixtures of values: 2 H for each pair of tokens, twice (Vaswani et al. 2017, eq. 1)."""
    pairs = sum(_attended_pairs(lengths, window) for window in _windows(config))
    return 2 * (2 * config.hidden_size * pairs)


def _windows(config: ModelConfig) -> list[int | None]:
    """Return for each layer how many tokens to either side one sees; None: the whole sequence."""
    every, width = config.global_attn_every_n_layers, config.local_attention
    if every is None or width is None:
        return [None] * config.num_hidden_layers
    return [width // 2 if layer % every else None for layer in range(config.num_hidden_layers)]


def _attended_pairs(lengths: np.ndarray, window: int | None) -> int:
    """Count pairs of a query and a key that it sees: a sequence of n has n - d pairs at each distance d, both ways."""
    farthest = lengths - 1 if window is None else np.minimum(lengths - 1, window)
    return int((lengths + 2 * lengths * farthest - farthest * (farthest + 1)).sum())


def _next_sentence_flops(config: ModelConfig, sequences: int) -> int:
    """The pooler, and two scores."""
    return 2 * sequences * config.hidden_size * (config.hidden_size + 2) if config.next_sentence else 0
