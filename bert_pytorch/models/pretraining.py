"""What every architecture does in pretraining: heads on the tokens that a loss reads, losses as sums.

The state dict's names and shapes are those of Hugging Face's BERT for everything that a BERT has, whatever the
architecture, except that the word embedding has `padded_vocab_size` rows (the last ones zero, for ever) and that the
decoder, tied to it, is not listed again.  `interop` knows what other families call the same.
"""
# B sequences, T packed tokens, M masked ones, H hidden, V vocabulary

from abc import ABC, abstractmethod

from torch import Tensor

from bert_pytorch.kernels.cpu_embedding import tied_lookup
from bert_pytorch.models.attending import AttendingModel
from bert_pytorch.models.attention import AttentionName
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Encoder
from bert_pytorch.models.heads import PretrainingHeads
from bert_pytorch.models.initialization import initialize_weights
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.lessons import Lesson
from bert_pytorch.models.losses import LossTerms, count_correct, cross_entropy_sum
from bert_pytorch.models.wanted import WantedTokens


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

    def forward(self, batch: PackedBatch, with_accuracy: bool = False, lesson: Lesson | None = None) -> LossTerms:
        """Return the losses as sums over the masked tokens and the pairs, those with a label.

        A batch without masked tokens gives every parameter a zero gradient (DDP waits for all of them).  A model with
        a next-sentence head that is fed a batch without pair labels leaves that head untouched: fit for evaluation.

        Args:
            batch: T tokens, M of them masked.
            with_accuracy: whether to count what is predicted rightly.
            lesson: what a teacher says of the batch, to be learnt as well.
        """
        pairs = batch.next_sentence_labels if self.bert.pooler is not None else None
        everywhere = lesson is not None and lesson.hidden is not None
        wanted = WantedTokens.of(batch, with_firsts=pairs is not None, everywhere=everywhere)
        words, decoder = tied_lookup(self.bert.embeddings.word_embeddings.weight, batch.input_ids)
        hidden = self.encode(batch, wanted.tokens, words)
        masked = hidden.index_select(0, wanted.masked)
        nsp_loss_sum = nsp_correct = mlm_correct = soft_target_loss_sum = cosine_loss_sum = None
        if with_accuracy or lesson is not None:
            scores = self.cls.predictions(masked, decoder)
            mlm_loss_sum = cross_entropy_sum(scores, batch.labels)
            mlm_correct = count_correct(scores, batch.labels) if with_accuracy else None
            soft_target_loss_sum = lesson.soft_target_sum(scores, batch.labels) if lesson is not None else None
        else:
            mlm_loss_sum = self.cls.predictions.loss_sum(masked, decoder, batch.labels)
        if pairs is not None:
            assert wanted.firsts is not None
            pair_scores = self._pair_scores(hidden.index_select(0, wanted.firsts))
            nsp_loss_sum = cross_entropy_sum(pair_scores, pairs)
            nsp_correct = count_correct(pair_scores, pairs) if with_accuracy else None
        if lesson is not None:
            cosine_loss_sum = lesson.cosine_sum(hidden, batch.real_tokens)
        return LossTerms(mlm_loss_sum, nsp_loss_sum, mlm_correct, nsp_correct, soft_target_loss_sum, cosine_loss_sum)

    def _pair_scores(self, firsts: Tensor) -> Tensor:
        assert self.bert.pooler is not None, "this model has no next-sentence head"
        assert self.cls.seq_relationship is not None
        scores: Tensor = self.cls.seq_relationship(self.bert.pooler(firsts))
        return scores

    def _padded_mlm_logits(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)
        return scores
