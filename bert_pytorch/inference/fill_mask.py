"""Filling `[MASK]` in a text: what the masked-LM head thinks stands there, ranked.

A byte-level BPE vocabulary calls it `<mask>`; there, both spellings are read.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from bert_pytorch.errors import InputError
from bert_pytorch.interop.sources import load_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import MASK_TOKEN, MicroBatch, Vocabulary
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary


class Guess(NamedTuple):
    """One candidate for a mask."""

    token: str
    """As in the vocabulary: WordPiece's `##x` continues the word before, byte-level BPE's `Ġx` begins one."""
    probability: float
    """Among all tokens of the vocabulary."""


class MaskFiller:
    """A pretrained model and its tokenizer."""

    def __init__(self, model: PretrainingModel, vocabulary: Vocabulary) -> None:
        self.model = model.eval()
        self.vocabulary = vocabulary
        self.tokenizer = tokenizer_from_vocabulary(vocabulary)
        self.mask_id = vocabulary.mask_id
        self.mask_token = vocabulary.special.mask

    @classmethod
    def load(cls, checkpoint: Path) -> "MaskFiller":
        """Load any source that `load_model` knows.

        Raises:
            InputError: if it cannot be loaded or has no masked-LM head.
        """
        loaded = load_model(checkpoint)
        missing = [name for name in loaded.missing if name.startswith("cls.predictions.")]
        if missing:
            raise InputError(
                f"{checkpoint}: it is an encoder without a masked-LM head ({missing[0]} is missing), so it cannot fill "
                "masks. Pretrain it further, or name a checkpoint with the head."
            )
        return cls(loaded.model, loaded.vocabulary)

    def problem_with(self, text: str) -> str | None:
        """Say why a text cannot be filled; None where it can."""
        ids = self._encode(text)
        shown = text if len(text) <= 60 else text[:57] + "…"
        if self.mask_id not in ids:
            spelling = f"{MASK_TOKEN}, in capitals,"
            if self.mask_token != MASK_TOKEN:
                spelling = f"{self.mask_token}, or {spelling}"
            return f"{shown!r} has no {self.mask_token}: write {spelling} where a word is wanted."
        limit = self.model.config.max_position_embeddings
        if len(ids) > limit:
            return f"{shown!r} has {len(ids)} tokens, the model has positions for {limit}: shorten it."
        return None

    @torch.inference_mode()
    def fill(self, text: str, top_k: int) -> list[list[Guess]]:
        """Rank the `top_k` likeliest tokens for each `[MASK]`, each mask by itself, in the order of the text.

        Args:
            text: one for which `problem_with` finds nothing.
            top_k: candidates for each mask; at most the whole vocabulary.
        """
        single = _single(self._encode(text), self.mask_id)
        batch = PackedBatch.from_numpy(single, self.model.cls.predictions.bias.device)
        scores = self.model.mlm_logits(self.model.encode(batch)[batch.masked_positions])
        best = scores.float().softmax(dim=1).topk(min(top_k, scores.shape[1]), dim=1)
        return [
            [Guess(self.vocabulary.tokens[token], probability) for token, probability in zip(ids, values, strict=True)]
            for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _encode(self, text: str) -> list[int]:
        """Encode a text in which a mask may be spelled as the vocabulary does, or `[MASK]`."""
        return self.tokenizer.encode_with_masks(text.replace(MASK_TOKEN, self.mask_token))


def _single(ids: list[int], mask_id: int) -> MicroBatch:
    """Make a batch of one sequence of one segment."""
    tokens = np.array(ids, dtype=np.int32)
    masked = np.flatnonzero(tokens == mask_id)
    return MicroBatch(
        input_ids=tokens,
        token_type_ids=np.zeros_like(tokens),
        position_ids=np.arange(len(tokens), dtype=np.int32),
        cu_seqlens=np.array([0, len(tokens)], dtype=np.int32),
        masked_positions=masked,
        labels=tokens[masked].astype(np.int64),
        next_sentence_labels=None,
    )
