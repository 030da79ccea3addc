"""From a packed batch to hidden states: embeddings and a stack of layers, the last of which may compute less."""
# T packed tokens, Q of them that are wanted, H hidden

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bert_pytorch.models.attention import Attention, Narrowing
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.heads import Pooler
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.layers import BatchPlan, Dropout, Embedding, Heads, layer_norm
from bert_pytorch.models.patterns import Rotation


def padded_vocab_size(vocab_size: int) -> int:
    """Round up to a multiple of 8: tensor cores and vector units want aligned matrices."""
    return -(-vocab_size // 8) * 8


class Embeddings(nn.Module):
    """Word embeddings, those of positions and segments where there are any, summed and normalised.

    Args:
        config: of the model.
        vocab_size: V.
        positions: whether positions are embedded here; otherwise they enter attention.
        bias: of the LayerNorm.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, *, positions: bool = True, bias: bool = True) -> None:
        super().__init__()
        hidden, segments = config.hidden_size, config.type_vocab_size
        self.word_embeddings = Embedding(padded_vocab_size(vocab_size), hidden)
        self.position_embeddings = Embedding(config.max_position_embeddings, hidden) if positions else None
        self.token_type_embeddings = Embedding(segments, hidden) if segments else None
        self.LayerNorm = layer_norm(config, bias=bias)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, batch: PackedBatch, words: Tensor | None = None) -> Tensor:
        """Return (T, H); `words`, (T, H), are the tokens' word embeddings where they are looked up already."""
        summed = self.word_embeddings(batch.input_ids) if words is None else words
        if self.position_embeddings is not None:
            summed = summed + self.position_embeddings(batch.position_ids)
        if self.token_type_embeddings is not None:
            # A single one is RoBERTa's: every token's, whatever segment the data says.
            single, segments = self.token_type_embeddings.num_embeddings == 1, self.token_type_embeddings
            summed = summed + (segments.weight if single else segments(batch.token_type_ids))
        return self.dropout(self.LayerNorm(summed))


class LayerStack(nn.Module):
    """The layers under the name that Hugging Face gives them."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class Encoder(nn.Module):
    """Embeddings, layers, the last LayerNorm of a pre-norm stack, and the pooler where a task reads [CLS]."""

    def __init__(
        self,
        config: ModelConfig,
        embeddings: Embeddings,
        layers: Iterable[nn.Module],
        final_norm: nn.LayerNorm | None = None,
        *,
        pooler: bool = False,
    ) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = LayerStack(layers)
        self.LayerNorm = final_norm
        self.pooler: nn.Module | None = Pooler(config) if pooler else None
        self.head_size = config.hidden_size // config.num_attention_heads
        attending = (module for module in self.modules() if isinstance(module, Heads))
        self.rope_bases = {heads.rope_base for heads in attending if heads.rope_base is not None}
        self.checkpoint_activations = False

    def forward(
        self, batch: PackedBatch, attention: Attention, queries: Tensor | None = None, words: Tensor | None = None
    ) -> Tensor:
        """Return the last hidden states.

        Args:
            batch: T tokens.
            attention: how the layers attend; a `Narrowing` one where `queries` are given.
            queries: int64 (Q,), the tokens whose hidden states are wanted, in rising order; None: all.  The last layer
                computes keys and values for every token and everything else for these alone.
            words: (T, H), the tokens' word embeddings, where they are looked up already.

        Returns:
            (T, H), or (Q, H).
        """
        hidden: Tensor = self.embeddings(batch, words)
        everywhere = BatchPlan(attention, attention.plan(batch), self._rotations(batch, hidden.dtype))
        *layers, last = self.encoder.layer
        for layer in layers:
            hidden = self._applied(layer, hidden, everywhere)
        hidden = self._applied(last, hidden, _narrowed(everywhere, batch, queries))
        return hidden if self.LayerNorm is None else self.LayerNorm(hidden)

    def _applied(self, layer: nn.Module, hidden: Tensor, plan: BatchPlan) -> Tensor:
        if self.checkpoint_activations and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(layer, hidden, plan, use_reentrant=False)
            return recomputed
        computed: Tensor = layer(hidden, plan)
        return computed

    def _rotations(self, batch: PackedBatch, dtype: torch.dtype) -> dict[float, Rotation]:
        dtype = torch.promote_types(dtype, torch.float32)  # angles are never rounded to 8 bits
        return {base: Rotation.at(batch.position_ids, self.head_size, base, dtype) for base in self.rope_bases}


def _narrowed(plan: BatchPlan, batch: PackedBatch, queries: Tensor | None) -> BatchPlan:
    if queries is None:
        return plan
    assert isinstance(plan.attention, Narrowing), f"{plan.attention.name} attention computes all tokens"
    return plan._replace(plan=plan.attention.narrowed(plan.plan, batch, queries), queries=queries)
