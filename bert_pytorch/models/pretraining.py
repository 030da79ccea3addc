"""What every architecture does in pretraining: attention is chosen, lengths are checked, losses become sums.

The state dict's names and shapes are those of Hugging Face's BERT for everything that a BERT has, whatever the
architecture, except that the word embedding has `padded_vocab_size` rows (the last ones zero, for ever) and that the
decoder, tied to it, is not listed again.  `interop` knows what other families call the same.
"""
# B sequences, T packed tokens, M masked ones, H hidden, V vocabulary

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bert_pytorch.errors import InputError
from bert_pytorch.models.attention import Attention, AttentionName, Narrowing, choose_attention
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Encoder
from bert_pytorch.models.heads import PretrainingHeads
from bert_pytorch.models.initialization import initialize_weights
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import LossTerms, count_correct, cross_entropy_sum
from bert_pytorch.models.wanted import WantedTokens


class AttendingModel(nn.Module):
    """A model that holds an encoder in `bert` and knows how it attends on each device."""

    bert: Encoder

    def __init__(self, config: ModelConfig, vocab_size: int | None, attention: AttentionName) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size or config.vocab_size
        self.attention_name: AttentionName = attention
        self._attentions: dict[tuple[torch.device, bool], Attention] = {}

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
        hidden: Tensor = self.bert(batch, self._attention_for(batch))
        return hidden

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


class PretrainingModel(AttendingModel, ABC):
    """An encoder with the masked-LM head and, where configured, the next-sentence head."""

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
        super().__init__(config, vocab_size, attention)
        self.bert = self.encoder(config, self.vocab_size)
        self.cls = self.heads(config, self.vocab_size)
        self.prunes_last_layer = True
        """False computes the last layer for tokens that no loss reads as well: slower, the same losses."""
        if not self.cls.predictions.bias.is_meta:
            initialize_weights(self, seed)

    @staticmethod
    @abstractmethod
    def encoder(config: ModelConfig, vocab_size: int) -> Encoder:
        """Assemble the encoder of this architecture."""

    @staticmethod
    def heads(config: ModelConfig, vocab_size: int) -> PretrainingHeads:
        """Assemble the heads of this architecture; BERT's unless it says otherwise."""
        return PretrainingHeads(config, vocab_size)

    def mlm_logits(self, hidden: Tensor) -> Tensor:
        """Score the vocabulary for hidden states (M, H) of masked tokens: (M, V)."""
        return self._padded_mlm_logits(hidden)[:, : self.vocab_size]

    def nsp_logits(self, hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Score `B follows A` (0) against `B is random` (1) for each sequence: (B, 2); empty slots get any scores."""
        firsts = cu_seqlens[:-1].clamp(max=len(hidden) - 1)  # an empty slot may begin behind the last token
        return self._pair_scores(hidden.index_select(0, firsts))

    def forward(self, batch: PackedBatch, with_accuracy: bool = False) -> LossTerms:
        """Return the losses as sums over the masked tokens and the pairs, those with a label.

        A batch without masked tokens gives every parameter a zero gradient (DDP waits for all of them).  A model with
        a next-sentence head that is fed a batch without pair labels leaves that head untouched: fit for evaluation.
        """
        pairs = batch.next_sentence_labels if self.bert.pooler is not None else None
        masked, firsts = self._masked_and_firsts(batch, with_firsts=pairs is not None)
        scores = self._padded_mlm_logits(masked)
        nsp_loss_sum = nsp_correct = None
        if pairs is not None:
            assert firsts is not None
            pair_scores = self._pair_scores(firsts)
            nsp_loss_sum = cross_entropy_sum(pair_scores, pairs)
            nsp_correct = count_correct(pair_scores, pairs) if with_accuracy else None
        return LossTerms(
            mlm_loss_sum=cross_entropy_sum(scores, batch.labels),
            nsp_loss_sum=nsp_loss_sum,
            mlm_correct=count_correct(scores, batch.labels) if with_accuracy else None,
            nsp_correct=nsp_correct,
        )

    def _masked_and_firsts(self, batch: PackedBatch, *, with_firsts: bool) -> tuple[Tensor, Tensor | None]:
        """Return the last hidden states of the masked tokens, (M, H), and of the sequences' first ones, (B, H)."""
        attention = self._attention_for(batch)
        # Rows of fixed length are left whole: their unused places for masked tokens would all ask at token 0.
        if not self.prunes_last_layer or batch.row_length is not None or not isinstance(attention, Narrowing):
            hidden = self.encode(batch)
            firsts = batch.cu_seqlens[:-1].clamp(max=len(hidden) - 1)
            masked = hidden.index_select(0, batch.masked_positions)
            return masked, hidden.index_select(0, firsts) if with_firsts else None
        self._check_lengths(batch.lengths)
        wanted = WantedTokens.of(batch, with_firsts=with_firsts)
        hidden = self.bert(batch, attention, wanted.tokens)
        masked = hidden.index_select(0, wanted.masked) if wanted.firsts is not None else hidden
        return masked, None if wanted.firsts is None else hidden.index_select(0, wanted.firsts)

    def _pair_scores(self, firsts: Tensor) -> Tensor:
        assert self.bert.pooler is not None, "this model has no next-sentence head"
        assert self.cls.seq_relationship is not None
        scores: Tensor = self.cls.seq_relationship(self.bert.pooler(firsts))
        return scores

    def _padded_mlm_logits(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)
        return scores
