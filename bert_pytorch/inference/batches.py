"""Sequences of any lengths through a model: packed, the long with the long, results in the order they came in."""
# n sequences, T tokens of a batch, B its sequences, K scores

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tasks.features import Features, packed

Score = Callable[[PackedBatch], Tensor]
"""Returns (B, K), a row for each sequence, or (T, K), one for each token."""


class Runner(NamedTuple):
    """How batches are computed."""

    device: torch.device
    precision: Precision
    max_tokens: int
    """Tokens of a batch; a longer sequence makes one by itself."""

    @torch.inference_mode()
    def run(self, score: Score, features: Features) -> list[np.ndarray]:
        """Return what `score` says of each sequence, float32 (K,) or (its tokens, K)."""
        results: list[np.ndarray] = [np.empty(0)] * len(features.lengths)
        for chosen in batches_of(features.lengths, self.max_tokens):
            batch = PackedBatch.from_numpy(packed(features, chosen).inputs, self.device)
            with self.precision.autocast():
                scores = score(batch).float().cpu().numpy()
            for_tokens = len(scores) != len(chosen)  # [CLS] and [SEP] make a sequence two tokens at least
            parts = np.split(scores, np.cumsum(batch.lengths)[:-1]) if for_tokens else scores
            for index, part in zip(chosen.tolist(), parts, strict=True):
                results[index] = part
        return results


def batches_of(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Yield indices of sequences, longest first, as many as `max_tokens` holds (or one)."""
    order = np.argsort(-lengths, kind="stable")
    start = tokens = 0
    for place, length in enumerate(lengths[order].tolist()):
        if tokens + length > max_tokens and place > start:
            yield order[start:place]
            start, tokens = place, 0
        tokens += length
    if start < len(order):
        yield order[start:]
