"""How large a model is and what a step of it needs, by formula: for `--dry_run`, before anything is built."""
# T packed tokens of a micro-batch, M masked ones, H hidden, I intermediate, V vocabulary

from typing import NamedTuple

from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import padded_vocab_size

GATED = ("mosaic_bert", "modernbert")
"""Architectures with a gated feed-forward block, and without position embeddings."""


class MemoryEstimate(NamedTuple):
    """Bytes on one device, by what they are for."""

    parameters: int
    """Weights in float32, with the vocabulary's padding rows."""
    gradients: int
    """As many again."""
    optimizer_state: int
    """Moments in float32."""
    activations: int
    """What the backward pass of one micro-batch keeps, and its score matrices."""

    @property
    def total(self) -> int:
        """All of it; the allocator's slack and the device's own libraries (about 1 GiB on a GPU) come on top."""
        return sum(self)


def num_parameters(config: ModelConfig, vocab_size: int | None = None) -> int:
    """Count parameters as the papers do, without the padding rows of the vocabulary; the tied decoder counts once."""
    hidden, inner, vocab = config.hidden_size, config.intermediate_size, vocab_size or config.vocab_size
    gated, biases = config.model_type in GATED, config.model_type != "modernbert"
    positions = 0 if gated else config.max_position_embeddings  # the gated ones have theirs in attention
    square, norm = hidden * hidden + biases * hidden, hidden + biases * hidden
    embeddings = (vocab + positions + config.type_vocab_size) * hidden + norm
    widening = 2 * hidden * inner if gated else hidden * inner + inner
    # ModernBERT's first layer lacks one LayerNorm, its stack ends in one.
    layer = (4 * square + norm) + widening + (inner * hidden + biases * hidden) + norm
    masked_token_head = square + norm + vocab
    next_sentence = square + 2 * hidden + 2 if config.next_sentence else 0
    return embeddings + config.num_hidden_layers * layer + masked_token_head + next_sentence


def memory_estimate(
    config: ModelConfig,
    vocab_size: int | None = None,
    *,
    tokens: int,
    masked_tokens: int,
    optimizer_state_copies: int = 2,
    bytes_per_value: int = 4,
    checkpoint_activations: bool = False,
) -> MemoryEstimate:
    """Estimate what training needs on one device; rows of fixed length keep the last layer whole, a little more.

    Args:
        config: shape of the model.
        vocab_size: V of the corpus, where it is not the configuration's.
        tokens: T of the largest micro-batch.
        masked_tokens: M of the largest micro-batch.
        optimizer_state_copies: numbers kept per parameter, 2 for LAMB and AdamW.
        bytes_per_value: of activations, 2 under fp16 or bf16 autocast.
        checkpoint_activations: whether layers are computed again in the backward pass.
    """
    vocab = vocab_size or config.vocab_size
    padding = (padded_vocab_size(vocab) - vocab) * config.hidden_size
    parameters = 4 * (num_parameters(config, vocab) + padding)
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    dropped = 2 * hidden if config.hidden_dropout_prob else 0  # a GPU keeps masks of one byte, a CPU of four
    gated = config.model_type in GATED
    widened = 4 * inner if gated else 2 * inner  # before and after its activation; both halves and their product
    turned = 2 * hidden if config.model_type == "modernbert" else 0  # queries and keys after their rotation
    weights = 3 * hidden * hidden + (2 * hidden * inner if gated else 0)  # joined ones
    # Kept by one layer for each token: input, queries, keys, values, attended twice, both LayerNorm inputs, the first
    # one's output; and the feed-forward layer.
    layer = tokens * (9 * hidden + turned + widened + dropped) + weights
    # The last one computes input, keys and values for all tokens, the rest for masked ones.
    last = tokens * (3 * hidden + turned // 2) + masked_tokens * (7 * hidden + widened + dropped) + weights
    kept = layers * tokens * hidden + layer if checkpoint_activations else (layers - 1) * layer + last
    embeddings = tokens * (hidden + dropped // 2)
    head = masked_tokens * 5 * hidden
    # Scores and log-probabilities forward; log-probabilities and two gradients backward.  In float32, whatever
    # precision the rest has.  (A CPU holds one of the three, see `kernels.cross_entropy`.)
    scores = 3 * 4 * masked_tokens * padded_vocab_size(vocab)
    return MemoryEstimate(
        parameters=parameters,
        gradients=parameters,
        optimizer_state=optimizer_state_copies * parameters,
        activations=bytes_per_value * (kept + embeddings + head) + scores,
    )
