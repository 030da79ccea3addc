"""Sequences of any lengths through a model: packed, the long with the long, results in the order they came in."""
# n sequences, B sequences of a batch, K scores

from collections.abc import Iterator

import numpy as np
import torch

from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tasks.features import Features, packed
from bert_pytorch.tasks.scorer import Score, Scorer


class Runner:
    """Computes batches.

    Args:
        device: where.
        precision: of the passes.
        max_tokens: of a batch; a longer sequence makes one by itself.
    """

    def __init__(self, device: torch.device, precision: Precision, max_tokens: int) -> None:
        self.device = device
        self._precision = precision
        self._max_tokens = max_tokens
        self._scorers: dict[Score, Scorer] = {}

    def run(self, score: Score, features: Features) -> list[np.ndarray]:
        """Return what `score` says of each sequence, float32 (K,) or (its tokens, K).

        What a device records of its passes is kept for the next features.
        """
        if score not in self._scorers:
            self._scorers[score] = Scorer(score, self.device, self._precision, max_tokens=self._max_tokens)
        results: list[np.ndarray] = [np.empty(0)] * len(features.lengths)
        for chosen in batches_of(features.lengths, self._max_tokens):
            scores = self._scorers[score](packed(features, chosen).inputs)
            for index, part in zip(chosen.tolist(), scores, strict=True):
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
