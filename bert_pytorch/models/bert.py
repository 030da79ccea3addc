"""BERT (Devlin et al. 2019) for pretraining, on packed input: T tokens and where each sequence starts.

The state dict's names and shapes are those of Hugging Face's `BertForPreTraining`, except that the word embedding has
`padded_vocab_size` rows (the last ones zero, for ever) and that the decoder, tied to it, is not listed again.
"""
# B sequences, T packed tokens, M masked ones, H hidden, V vocabulary

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bert_pytorch.errors import InputError
from bert_pytorch.models.attention import Attention, AttentionName, choose_attention
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.heads import Pooler, PretrainingHeads
from bert_pytorch.models.initialization import initialize_weights
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.layers import Dropout, Embedding, PostNormLayer, layer_norm
from bert_pytorch.models.losses import LossTerms, count_correct, cross_entropy_sum


def padded_vocab_size(vocab_size: int) -> int:
    """Round up to a multiple of 8: tensor cores and vector units want aligned matrices."""
    return -(-vocab_size // 8) * 8


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.word_embeddings = Embedding(padded_vocab_size(vocab_size), config.hidden_size)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size)
        segments = config.type_vocab_size
        self.token_type_embeddings = Embedding(segments, config.hidden_size) if segments else None
        self.LayerNorm = layer_norm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return (T, H)."""
        summed = self.word_embeddings(batch.input_ids) + self.position_embeddings(batch.position_ids)
        if self.token_type_embeddings is not None:
            summed = summed + self.token_type_embeddings(batch.token_type_ids)
        return self.dropout(self.LayerNorm(summed))


class LayerStack(nn.Module):
    """The layers under the name that Hugging Face gives them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(PostNormLayer(config) for _ in range(config.num_hidden_layers))


class Bert(nn.Module):
    """Embeddings, layers, and the pooler where the next-sentence task is."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, vocab_size)
        self.encoder = LayerStack(config)
        self.pooler = Pooler(config) if config.next_sentence else None
        self.checkpoint_activations = False

    def forward(self, batch: PackedBatch, attention: Attention) -> Tensor:
        """Return the last layer's hidden states, (T, H)."""
        hidden: Tensor = self.embeddings(batch)
        plan = attention.plan(batch)
        for layer in self.encoder.layer:
            if self.checkpoint_activations and torch.is_grad_enabled():
                hidden = _recomputed(layer, hidden, attention, plan)
            else:
                hidden = layer(hidden, attention, plan)
        return hidden


class BertForPreTraining(nn.Module):
    """BERT with the masked-LM head and, where configured, the next-sentence head."""

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int | None = None,
        attention: AttentionName = "auto",
        seed: int = 0,
    ) -> None:
        """Build and initialise the model.

        Args:
            config: shape and dropout.
            vocab_size: V of the corpus, where it is not `config.vocab_size`.
            attention: how attention is computed; see `select_attention`.
            seed: of the initial weights, which are the same on every rank and device.  On the meta device nothing is
                drawn: after `to_empty`, call `initialize_weights`.
        """
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size or config.vocab_size
        self.attention_name: AttentionName = attention
        self._attentions: dict[tuple[torch.device, bool], Attention] = {}
        self.bert = Bert(config, self.vocab_size)
        self.cls = PretrainingHeads(config, self.vocab_size)
        if not self.cls.predictions.bias.is_meta:
            initialize_weights(self, seed)

    @property
    def checkpoint_activations(self) -> bool:
        """Whether each layer's activations are computed again in the backward pass instead of being kept."""
        return self.bert.checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, value: bool) -> None:
        self.bert.checkpoint_activations = value

    def select_attention(self, device: torch.device, *, fixed_rows: bool = False) -> str:
        """Choose how attention is computed on `device`, for batches with `row_length` or without.

        Returns:
            `name: reason`, for the log.
        """
        dropout_p = self.config.attention_probs_dropout_prob
        chosen = choose_attention(self.attention_name, device, dropout_p, fixed_rows=fixed_rows)
        self._attentions[device, fixed_rows] = chosen.attention
        return f"{chosen.attention.name}: {chosen.reason}"

    def encode(self, batch: PackedBatch) -> Tensor:
        """Return hidden states (T, H).

        Raises:
            InputError: if a sequence is longer than the model has positions.
        """
        self._check_lengths(batch.lengths)
        return self.bert(batch, self._attention_for(batch))

    def mlm_logits(self, hidden: Tensor) -> Tensor:
        """Score the vocabulary for hidden states (M, H) of masked tokens: (M, V)."""
        return self._padded_mlm_logits(hidden)[:, : self.vocab_size]

    def nsp_logits(self, hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Score `B follows A` (0) against `B is random` (1) for each sequence: (B, 2); empty slots get any scores."""
        assert self.bert.pooler is not None, "this model has no next-sentence head"
        assert self.cls.seq_relationship is not None
        firsts = cu_seqlens[:-1].clamp(max=len(hidden) - 1)  # an empty slot may begin behind the last token
        return self.cls.seq_relationship(self.bert.pooler(hidden.index_select(0, firsts)))

    def forward(self, batch: PackedBatch, with_accuracy: bool = False) -> LossTerms:
        """Return the losses as sums over the masked tokens and the pairs, those with a label.

        A batch without masked tokens gives every parameter a zero gradient (DDP waits for all of them).  A model with
        a next-sentence head that is fed a batch without pair labels leaves that head untouched: fit for evaluation.
        """
        hidden = self.encode(batch)
        scores = self._padded_mlm_logits(hidden.index_select(0, batch.masked_positions))
        nsp_loss_sum = nsp_correct = None
        if batch.next_sentence_labels is not None and self.bert.pooler is not None:
            pair_scores = self.nsp_logits(hidden, batch.cu_seqlens)
            nsp_loss_sum = cross_entropy_sum(pair_scores, batch.next_sentence_labels)
            nsp_correct = count_correct(pair_scores, batch.next_sentence_labels) if with_accuracy else None
        return LossTerms(
            mlm_loss_sum=cross_entropy_sum(scores, batch.labels),
            nsp_loss_sum=nsp_loss_sum,
            mlm_correct=count_correct(scores, batch.labels) if with_accuracy else None,
            nsp_correct=nsp_correct,
        )

    def _padded_mlm_logits(self, hidden: Tensor) -> Tensor:
        return self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)

    def _attention_for(self, batch: PackedBatch) -> Attention:
        device, fixed_rows = batch.input_ids.device, batch.row_length is not None
        if (device, fixed_rows) not in self._attentions:
            self.select_attention(device, fixed_rows=fixed_rows)
        return self._attentions[device, fixed_rows]

    def _check_lengths(self, lengths: Sequence[int]) -> None:
        longest, limit = max(lengths, default=0), self.config.max_position_embeddings
        if longest > limit:
            raise InputError(
                f"a sequence has {longest} tokens, but the model has {limit} positions (max_position_embeddings). "
                "Use shards with shorter sequences, or a model configuration with more positions."
            )


def _recomputed(layer: nn.Module, hidden: Tensor, attention: Attention, plan: Any) -> Tensor:
    return checkpoint(layer, hidden, attention, plan, use_reentrant=False)
