"""Parts that encoders share.  Module names follow Hugging Face's BERT, so that weights interchange by name."""
# T packed tokens, H hidden, N heads, D = H / N, I intermediate

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_pytorch.models.attention import Attention
from bert_pytorch.models.config import Activation, ModelConfig


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


class Linear(nn.Linear):
    """A linear layer that leaves its initialisation to `models.initialization`, which knows all layers."""

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
        return F.dropout(input, self.p) if self.training and self.p else input


def layer_norm(config: ModelConfig) -> nn.LayerNorm:
    """Make a LayerNorm over the hidden size."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class ResidualOutput(nn.Module):
    """LayerNorm(residual + dropout(dense(hidden))): the post-norm end of both blocks of a layer."""

    def __init__(self, config: ModelConfig, in_features: int) -> None:
        super().__init__()
        self.dense = Linear(in_features, config.hidden_size)
        self.LayerNorm = layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Map (T, in_features) and (T, H) to (T, H)."""
        return self.LayerNorm(residual + self.dropout(self.dense(hidden)))


class Projections(nn.Module):
    """Queries, keys and values: three parameters (each with its own trust ratio in LAMB), one matrix product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self.fused = True
        """False calls the three modules one by one: slower, and hooks on them fire (K-FAC)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (T, H) to (T, 3H)."""
        parts = [self.query, self.key, self.value]
        if not self.fused:
            return torch.cat([part(hidden) for part in parts], dim=1)
        # Joining the weights copies 3 H² numbers, against 3 H² T multiplications: nothing for T in the thousands.
        return F.linear(hidden, torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))


class SelfAttention(nn.Module):
    """The attention block of a layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout_p = config.attention_probs_dropout_prob
        self.self = Projections(config)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, attention: Attention, plan: Any) -> Tensor:
        """Map (T, H) to (T, H)."""
        qkv = self.self(hidden).unflatten(1, (3, self.heads, -1))  # (T, 3, N, D)
        return self.output(attention(qkv, plan, self.dropout_p if self.training else 0.0), hidden)


class Intermediate(nn.Module):
    """The widening half of the feed-forward block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation_of(config.hidden_act)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (T, H) to (T, I)."""
        return self.activation(self.dense(hidden))


class PostNormLayer(nn.Module):
    """One transformer layer as in the original BERT: LayerNorm after each residual sum."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, attention: Attention, plan: Any) -> Tensor:
        """Map (T, H) to (T, H)."""
        attended = self.attention(hidden, attention, plan)
        return self.output(self.intermediate(attended), attended)
