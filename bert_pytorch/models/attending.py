"""What every model on an encoder does: attention is chosen, lengths are checked, what nobody reads is not computed."""
# T packed tokens, Q wanted ones, H hidden

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bert_pytorch.errors import InputError
from bert_pytorch.models.attention import Attention, AttentionName, ChosenAttention, Narrowing, choose_attention
from bert_pytorch.models.attention_choice import choose_on_gpu, current_dtype
from bert_pytorch.models.config import ModelConfig
from bert_pytorch.models.encoder import Encoder
from bert_pytorch.models.inputs import PackedBatch


class AttendingModel(nn.Module):
    """A model that holds an encoder in `bert` and knows how it attends on each device."""

    bert: Encoder

    def __init__(self, config: ModelConfig, vocab_size: int | None, attention: AttentionName) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size or config.vocab_size
        self.attention_name: AttentionName = attention
        self._attentions: dict[tuple[torch.device, bool], Attention] = {}
        self.prunes_last_layer = True
        """False computes the last layer for tokens that nobody asked for as well: slower, the same results."""

    @property
    def checkpoint_activations(self) -> bool:
        """Whether each layer's activations are computed again in the backward pass instead of being kept."""
        return self.bert.checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, value: bool) -> None:
        self.bert.checkpoint_activations = value

    def select_attention(
        self,
        device: torch.device,
        *,
        fixed_rows: bool = False,
        dtype: torch.dtype | None = None,
        saved: str | None = None,
        lengths: Sequence[int] | None = None,
    ) -> ChosenAttention:
        """Choose how attention is computed on `device`, for batches with `row_length` or without.

        Args:
            device: where.
            fixed_rows: whether batches have `row_length`.
            dtype: of queries, keys and values; None: as autocast has it at this moment.
            saved: what the run used so far, on a GPU.
            lengths: of a batch to measure with on a GPU; None: nothing is measured.

        Returns:
            What is used from now on, and why.

        Raises:
            ConfigError: if the attention asked for cannot be used.
        """
        if device.type == "cuda":
            dtype = dtype or current_dtype(device)
            chosen = choose_on_gpu(self, self.attention_name, device, dtype, fixed_rows, saved=saved, lengths=lengths)
        else:
            dropout_p = self.config.attention_probs_dropout_prob
            chosen = choose_attention(self.attention_name, device, dropout_p, fixed_rows=fixed_rows)
        self._attentions[device, fixed_rows] = chosen.attention
        return chosen

    def encode(self, batch: PackedBatch, tokens: Tensor | None = None, words: Tensor | None = None) -> Tensor:
        """Return the last hidden states.

        Args:
            batch: T tokens.
            tokens: int64 (Q,), those whose hidden states are wanted, in rising order; None: all.
            words: (T, H), the tokens' word embeddings, where they are looked up already.

        Returns:
            (T, H), or (Q, H).

        Raises:
            InputError: if a sequence is longer than the model has positions.
        """
        self._check_lengths(batch.lengths)
        attention = self._attention_for(batch)
        # Rows of fixed length are left whole: their unused places for masked tokens would all ask at token 0.
        can_prune = isinstance(attention, Narrowing) and batch.row_length is None
        if tokens is not None and self.prunes_last_layer and can_prune:
            pruned: Tensor = self.bert(batch, attention, tokens, words)
            return pruned
        hidden: Tensor = self.bert(batch, attention, words=words)
        return hidden if tokens is None else hidden.index_select(0, tokens)

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
