"""Parts that encoders share.  Module names follow Hugging Face's BERT, so that weights interchange by name.

Three axes: where a LayerNorm stands (`PostNormLayer`, `PreNormLayer`), how the feed-forward block widens
(`Intermediate`, `GatedIntermediate`), and how positions enter attention (`models.patterns`).
"""
# T packed tokens, Q of them that a layer computes, H hidden, N heads, D = H / N, I intermediate

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_pytorch.kernels.cpu_dropout import dropout
from bert_pytorch.kernels.cpu_residual_norm import residual_norm
from bert_pytorch.kernels.joined import split
from bert_pytorch.kernels.registry import in_use, triton_function
from bert_pytorch.models.attention import Attention
from bert_pytorch.models.config import Activation, ModelConfig
from bert_pytorch.models.patterns import FULL, Pattern, Rotation


def activation_of(name: Activation) -> Callable[[Tensor], Tensor]:
    """Return the activation function called `name` in model configurations."""
    if name in ("gelu_tanh", "gelu_new"):
        return nn.GELU(approximate="tanh")
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "gelu": F.gelu,
        "relu": F.relu,
        "swish": F.silu,
        "silu": F.silu,
    }
    return functions[name]


GELUS: dict[Activation, str] = {"gelu": "erf", "gelu_tanh": "tanh", "gelu_new": "tanh"}
"""Activations that the kernels know, and how each is computed."""


class Linear(nn.Linear):
    """A linear layer that leaves its initialisation to `models.initialization`, which knows all layers."""

    initial_scale = 1.0
    """Of its initial weights, times `initializer_range`."""

    def reset_parameters(self) -> None:
        """Do nothing: torch's own values would differ from layer kind to layer kind and cost seconds."""


class Embedding(nn.Embedding):
    """An embedding that leaves its initialisation to `models.initialization`."""

    def reset_parameters(self) -> None:
        """Do nothing."""


class Dropout(nn.Dropout):
    """Dropout that costs nothing where it does nothing."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 torch's name
        """Drop entries while training."""
        return dropout(input, self.p) if self.training else input


def layer_norm(config: ModelConfig, *, bias: bool = True) -> nn.LayerNorm:
    """Make a LayerNorm over the hidden size."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=bias)


def is_watched(*parts: nn.Linear) -> bool:
    """Whether hooks wait for the calls of any of these (K-FAC's, in some updates); then no path goes past them."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in parts)


def joined(hidden: Tensor, parts: list[nn.Linear]) -> Tensor:
    """Apply several linear layers as one: (T, H) to (T, their outputs side by side).

    They stay parameters of their own, each with its own trust ratio in LAMB.  Joining copies as many numbers as the
    weights have, against T times as many multiplications: nothing for T in the thousands.
    """
    weight = torch.cat([part.weight for part in parts])
    return F.linear(hidden, weight, None if parts[0].bias is None else torch.cat([part.bias for part in parts]))


class BatchPlan(NamedTuple):
    """What a layer is told about the batch besides its input."""

    attention: Attention
    """How it attends."""
    plan: Any
    """The attention's own plan of the batch."""
    rotations: Mapping[float, Rotation]
    """By base, for layers with rotary embeddings."""
    queries: Tensor | None = None
    """int64 (Q,), the tokens whose outputs are wanted, in rising order; None: all, Q = T."""

    def wanted(self, hidden: Tensor) -> Tensor:
        """Select the tokens whose outputs are wanted: (T, H) to (Q, H)."""
        return hidden if self.queries is None else hidden.index_select(0, self.queries)


class Heads(nn.Module):
    """Queries, keys and values, and attending with them: `self` in Hugging Face's names."""

    def __init__(
        self, config: ModelConfig, pattern: Pattern = FULL, rope_base: float | None = None, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob
        self.pattern = pattern
        self.rope_base = rope_base
        self.query = Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.key = Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.value = Linear(config.hidden_size, config.hidden_size, bias=bias)

    def forward(self, hidden: Tensor, batch: BatchPlan) -> Tensor:
        """Map (T, H) to (Q, H)."""
        query, key, value = (part.unflatten(1, (self.heads, -1)) for part in self._projected(hidden, batch))
        if self.rope_base is not None:
            rotation = batch.rotations[self.rope_base]
            key = rotation.turn(key)
            query = (rotation if batch.queries is None else rotation.of(batch.queries)).turn(query)
        return batch.attention(query, key, value, batch.plan, self.pattern, self.dropout_p if self.training else 0.0)

    def _projected(self, hidden: Tensor, batch: BatchPlan) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (Q, H), keys and values (T, H)."""
        if is_watched(self.query, self.key, self.value):
            return self.query(batch.wanted(hidden)), self.key(hidden), self.value(hidden)
        if batch.queries is None:
            query, key, value = split(joined(hidden, [self.query, self.key, self.value]), 3)
        else:
            query = self.query(batch.wanted(hidden))
            key, value = split(joined(hidden, [self.key, self.value]), 2)
        return query, key, value


class ResidualOutput(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))): the post-norm end of both blocks of a layer."""

    def __init__(self, config: ModelConfig, in_features: int) -> None:
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Map (T, in_features) and (T, H) to (T, H)."""
        norm, p = self.LayerNorm, self.dropout.p if self.training else 0.0
        if in_use("residual_norm", hidden) and not is_watched(self.dense):
            product = F.linear(hidden, self.dense.weight)
            fused = triton_function("residual_norm")
            normalised, _ = fused(product, residual, self.dense.bias, norm.weight, norm.bias, p, norm.eps)
            return normalised
        return residual_norm(self.dense(hidden), residual, norm.weight, norm.bias, norm.eps, p)


class PostNormAttention(nn.Module):
    """The attention block of a post-norm layer."""

    def __init__(self, config: ModelConfig, heads: Heads) -> None:
        super().__init__()
        self.self = heads
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, batch: BatchPlan) -> Tensor:
        """Map (T, H) to (Q, H)."""
        return self.output(self.self(hidden, batch), batch.wanted(hidden))


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation_of(config.hidden_act)
        self.gelu = GELUS.get(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (T, H) to (T, I)."""
        if self.gelu is not None and in_use("bias_gelu", hidden) and not is_watched(self.dense):
            fused: Tensor = triton_function("bias_gelu")(
                F.linear(hidden, self.dense.weight), self.dense.bias, tanh=self.gelu == "tanh"
            )
            return fused
        return self.activation(self.dense(hidden))


class GatedIntermediate(nn.Module):
    """The widening half as a gated linear unit without biases: activation(h W) * h V (Shazeer 2020, eq. 5)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.linear = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.activation = activation_of(config.hidden_act)
        self.gelu = GELUS.get(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (T, H) to (T, I)."""
        if is_watched(self.dense, self.linear):
            return self.activation(self.dense(hidden)) * self.linear(hidden)
        both = joined(hidden, [self.dense, self.linear])
        if self.gelu is not None and in_use("geglu", hidden):
            fused: Tensor = triton_function("geglu")(both, None, tanh=self.gelu == "tanh")
            return fused
        activated, linear = both.chunk(2, dim=1)
        return self.activation(activated) * linear


class PostNormLayer(nn.Module):
    """One transformer layer as in the original BERT: LayerNorm after each residual sum."""

    def __init__(self, config: ModelConfig, heads: Heads | None = None, intermediate: nn.Module | None = None) -> None:
        super().__init__()
        self.attention = PostNormAttention(config, heads or Heads(config))
        self.intermediate = intermediate or Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, batch: BatchPlan) -> Tensor:
        """Map (T, H) to (Q, H)."""
        attended = self.attention(hidden, batch)
        return self.output(self.intermediate(attended), attended)


class BlockOutput(nn.Module):
    """dropout(dense(hidden)): the pre-norm end of both blocks of a layer, no bias."""

    def __init__(self, config: ModelConfig, in_features: int) -> None:
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size, bias=False)
        # 2 L blocks are summed: smaller weights keep the sum's variance (Radford et al. 2019, section 2.3).
        self.dense.initial_scale = (2 * config.num_hidden_layers) ** -0.5
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (T, in_features) to (T, H)."""
        return self.dropout(self.dense(hidden))


class PreNormAttention(nn.Module):
    """The attention block of a pre-norm layer."""

    def __init__(self, config: ModelConfig, heads: Heads, *, normed: bool) -> None:
        super().__init__()
        self.LayerNorm = layer_norm(config, bias=False) if normed else None
        self.self = heads
        self.output = BlockOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, batch: BatchPlan) -> Tensor:
        """Map (T, H) to (Q, H)."""
        normed = hidden if self.LayerNorm is None else self.LayerNorm(hidden)
        return batch.wanted(hidden) + self.output(self.self(normed, batch))


class PreNormLayer(nn.Module):
    """One transformer layer with its LayerNorms (no biases) before the blocks (Xiong et al. 2020).

    Args:
        config: of the model.
        heads: of its attention.
        intermediate: the widening half of its feed-forward block.
        normed: False leaves out the first LayerNorm, where the input is normalised already.
    """

    def __init__(self, config: ModelConfig, heads: Heads, intermediate: nn.Module, *, normed: bool = True) -> None:
        super().__init__()
        self.attention = PreNormAttention(config, heads, normed=normed)
        self.LayerNorm = layer_norm(config, bias=False)
        self.intermediate = intermediate
        self.output = BlockOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, batch: BatchPlan) -> Tensor:
        """Map (T, H) to (Q, H)."""
        attended = self.attention(hidden, batch)
        return attended + self.output(self.intermediate(self.LayerNorm(attended)))


def blocks_between_attentions(model: nn.Module) -> list[nn.Module]:
    """Return the modules to compile: all that is computed token by token, each large enough to fuse something."""
    kinds = (ResidualOutput, Intermediate, GatedIntermediate, BlockOutput)
    return [module for module in model.modules() if isinstance(module, kinds)]
