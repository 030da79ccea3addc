"""`predict fill-mask`: what the masked-LM head thinks stands in the place of each `[MASK]`, ranked.

A byte-level BPE vocabulary calls it `<mask>`; there, both spellings are read.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field

from bert_pytorch.errors import ConfigError, InputError, report
from bert_pytorch.inference.texts import TextsConfig, read_texts
from bert_pytorch.interop.sources import load_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import MASK_TOKEN, MicroBatch, Vocabulary
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message='Field name "json"')  # pydantic has a deprecated method of that name

    class FillMaskConfig(TextsConfig):
        """Options of `fill-mask`: texts have [MASK] in them (byte-level BPE: or <mask>)."""

        checkpoint: Path | None = None
        """A ckpt_N.pt, a run's output folder, or a Hugging Face directory.  Required."""
        top_k: int = Field(5, ge=1)
        """Words shown for each mask."""
        json: bool = False  # type: ignore[assignment]
        """Print one JSON object a text instead of a table."""

        def combination_problems(self) -> Iterator[str]:
            """Say what is missing."""
            yield from super().combination_problems()
            if self.checkpoint is None:
                yield "--checkpoint is missing: name a ckpt_N.pt, a run's output folder or a Hugging Face directory."


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


def fill_masks(config: FillMaskConfig, program: str) -> None:
    """Print the guesses for each text; empty lines are passed over.

    Raises:
        ConfigError: naming each text on the command line that cannot be filled.
        InputError: at the first such line of a file or of standard input, or if the checkpoint cannot be used.
    """
    assert config.checkpoint is not None  # combination_problems saw to it
    filler = MaskFiller.load(config.checkpoint)
    problems = [problem for problem in map(filler.problem_with, config.texts) if problem is not None]
    if problems:
        raise ConfigError(program, problems)
    for text in _fillable(config, filler):
        guesses = filler.fill(text, config.top_k)
        shown = _as_json(text, guesses) if config.json else _as_table(text, guesses, filler)
        print(shown, flush=True)  # noqa: T201 the program's own output


def _fillable(config: FillMaskConfig, filler: MaskFiller) -> Iterator[str]:
    for text in read_texts(config):
        if not (stripped := text.text.strip()):
            continue
        problem = filler.problem_with(stripped)
        if problem is None:
            yield stripped
        elif config.is_interactive:
            report(problem)
        else:
            raise InputError(f"{text.where}: {problem}")


def _as_table(text: str, guesses: list[list[Guess]], filler: MaskFiller) -> str:
    lines = [text]
    for number, ranked in enumerate(guesses, start=1):
        if len(guesses) > 1:
            lines.append(f"  {filler.mask_token} {number}")
        lines += [f"  {guess.probability:7.2%}  {_readable(*filler.tokenizer.piece(guess.token))}" for guess in ranked]
    return "\n".join(lines) + "\n"


def _readable(piece: str, joins: bool) -> str:
    if not piece.strip() or not piece.isprintable():  # byte-level BPE has tokens for spaces and control characters
        piece = repr(piece)
    return f"…{piece}  (continues the word before)" if joins else piece


def _as_json(text: str, guesses: list[list[Guess]]) -> str:
    masks = [[guess._asdict() for guess in ranked] for ranked in guesses]
    return json.dumps({"text": text, "masks": masks}, ensure_ascii=False)
