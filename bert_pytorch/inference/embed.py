"""`predict embed`: one vector a text, from the encoder's last hidden states."""
# B sequences, T tokens, H hidden

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bert_pytorch.inference.batches import Runner
from bert_pytorch.inference.output import growing_array, json_lines
from bert_pytorch.inference.predicting import PredictConfig, fitting_features, predictions, runner_of
from bert_pytorch.inference.texts import Text, read_texts
from bert_pytorch.interop.sources import LoadedModel, load_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary

Pooling = Literal["mean", "cls"]


class EmbedConfig(PredictConfig):
    """Options of `embed`."""

    checkpoint: Path | None = None
    """A ckpt_N.pt, a run's output folder, or a Hugging Face directory.  Required."""

    pooling: Pooling = "mean"
    """What stands for a text: the mean over its tokens ([CLS] and [SEP] among them, as in sentence-transformers), or
    [CLS]."""
    normalize: bool = True
    """Make each vector of length 1, so that products are cosines."""
    truncate: bool = False
    """Cut texts that are longer than the model's positions, instead of refusing them."""


class Embedder:
    """An encoder and its tokenizer."""

    def __init__(self, loaded: LoadedModel, runner: Runner, config: EmbedConfig) -> None:
        self._model = loaded.model.to(runner.device)
        self._tokenizer = tokenizer_from_vocabulary(loaded.vocabulary)
        self._runner, self._config = runner, config

    def __call__(self, texts: Sequence[Text]) -> list[np.ndarray]:
        """Return float32 (H,) for each text."""
        limit = self._model.config.max_position_embeddings
        features = fitting_features(texts, self._tokenizer, limit, truncate=self._config.truncate)
        return self._runner.run(self._embed, features)

    def _embed(self, batch: PackedBatch) -> Tensor:
        """Return (B, H)."""
        if self._config.pooling == "cls":
            vectors = self._model.encode(batch, batch.first_tokens).float()
        else:
            hidden = self._model.encode(batch).float()
            lengths = batch.cu_seqlens.diff().long()
            sums = torch.segment_reduce(hidden, "sum", lengths=lengths)
            vectors = sums / lengths.unsqueeze(1)
        return F.normalize(vectors, dim=1) if self._config.normalize else vectors


def open_embedder(config: EmbedConfig) -> Embedder:
    """Open the checkpoint, any that `load_model` knows."""
    assert config.checkpoint is not None  # combination_problems saw to it
    return Embedder(load_model(config.checkpoint), runner_of(config), config)


def embed(config: EmbedConfig, program: str) -> None:
    """Write a line for each text, or a row of an array where the output file is a `.npy`."""
    results = predictions(config, open_embedder, read_texts(config))
    if config.output_file is not None and config.output_file.suffix == ".npy":
        with growing_array(config.output_file) as add:
            for _, vector in results:
                add(vector)
        return
    with json_lines(config.output_file) as write:
        for text, vector in results:
            write({"text": text.text, "embedding": vector.tolist()})
