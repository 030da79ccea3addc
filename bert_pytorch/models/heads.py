"""What is predicted from hidden states in pretraining: masked tokens, and whether B follows A."""
# M masked tokens, B sequences, H hidden, V vocabulary, V_pad its rows in the embedding (a multiple of 8)

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert_pytorch.kernels.chunked_cross_entropy import chunked_cross_entropy
from bert_pytorch.kernels.cpu import takes_cpu_kernels
from bert_pytorch.kernels.cross_entropy import linear_cross_entropy
from bert_pytorch.models.config import Activation, ModelConfig
from bert_pytorch.models.layers import Linear, activation_of, layer_norm
from bert_pytorch.models.losses import cross_entropy_sum
from bert_pytorch.runtime.device import widest_float

WHOLE_SCORES = 2**31
"""Bytes of float32 scores above which the loss takes them in pieces; torch holds three to four tensors of that size."""


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype in which autocast would multiply a tensor."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


class Transform(nn.Module):
    """Dense, activation and LayerNorm before the decoder."""

    def __init__(self, config: ModelConfig, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=bias)
        self.activation = activation_of(activation)
        self.LayerNorm = layer_norm(config, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (M, H) to (M, H)."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class MaskedTokenHead(nn.Module):
    """Scores of every vocabulary entry; the decoder's weight is the word embedding."""

    def __init__(self, config: ModelConfig, vocab_size: int, activation: Activation, *, bias: bool) -> None:
        super().__init__()
        self.transform = Transform(config, activation, bias=bias)
        self.bias = nn.Parameter(torch.empty(vocab_size))

    def forward(self, hidden: Tensor, word_embeddings: Tensor) -> Tensor:
        """Score.

        Args:
            hidden: (M, H).
            word_embeddings: (V_pad, H).

        Returns:
            (M, V_pad); -inf for padding rows, so that softmax gives them probability 0 and gradient exactly 0.
        """
        return F.linear(self.transform(hidden), word_embeddings, self._padded_bias(word_embeddings))

    def loss_sum(self, hidden: Tensor, word_embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy of the scores, summed over the tokens with a label, (); the scores are not returned.

        Args:
            hidden: (M, H).
            word_embeddings: (V_pad, H).
            labels: int64 (M,), `IGNORED_LABEL` = counts nowhere.
        """
        if takes_cpu_kernels(hidden):
            transformed = self.transform(hidden)
            return linear_cross_entropy(transformed, word_embeddings, self._padded_bias(word_embeddings), labels)
        if torch.is_grad_enabled() and 4 * len(hidden) * len(word_embeddings) > WHOLE_SCORES:
            transformed = self.transform(hidden)
            dtype = compute_dtype(transformed)
            bias = self._padded_bias(word_embeddings)
            wide = widest_float(transformed.device)
            return chunked_cross_entropy(transformed.to(dtype), word_embeddings.to(dtype), bias, labels, sum_dtype=wide)
        return cross_entropy_sum(self(hidden, word_embeddings), labels)

    def _padded_bias(self, word_embeddings: Tensor) -> Tensor:
        # Padding the bias keeps the product aligned and copies nothing large: slicing the weight or the scores took
        # 1.14 and 1.34 times as long on 2 cores (M 440, V 30522, H 256, forward and backward with the loss).
        return F.pad(self.bias, (0, len(word_embeddings) - len(self.bias)), value=-torch.inf)


class PretrainingHeads(nn.Module):
    """The `cls` module of Hugging Face's BERT.

    Args:
        config: of the model.
        vocab_size: V.
        activation: of the masked-LM head, where it is not the layers'.
        bias: whether its dense layer and LayerNorm have one; the decoder does.
    """

    def __init__(
        self, config: ModelConfig, vocab_size: int, activation: Activation | None = None, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.predictions = MaskedTokenHead(config, vocab_size, activation or config.hidden_act, bias=bias)
        self.seq_relationship = Linear(config.hidden_size, 2) if config.next_sentence else None


class Pooler(nn.Module):
    """activation(dense(hidden state of [CLS])); BERT's activation is tanh."""

    def __init__(self, config: ModelConfig, activation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, H) to (B, H)."""
        return self.activation(self.dense(hidden))
