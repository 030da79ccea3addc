"""What a model says of sequences, a row of an array each; in few shapes where a device compiles every shape anew."""
# n sequences of a batch; R rows of L tokens, T = R * L; K scores

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows
from bert_pytorch.data.packing import split_batch
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.device import replayed, wants_fixed_shapes
from bert_pytorch.runtime.precision import Precision

Score = Callable[[PackedBatch], Tensor]
"""Returns (B, K), a row for each sequence or slot, or (T, K), one for each token."""

_SHORTEST = 32
"""Tokens of a row at least; longer ones have a power of two, so that there are few lengths."""


class Scorer:
    """Scores packed batches; made anew when the model's weights have changed.

    Args:
        score: a model in evaluation mode, or a function of its own of a batch.
        device: of the model.
        precision: of the passes.
        max_tokens: of what is computed together, where shapes are fixed; one row is computed in any case.
        max_sequences: of what is computed together, likewise; None: no limit.
        longest: tokens that no sequence exceeds; None: not known.
        replays: whether a device may record the passes; not while the weights go on changing.
    """

    def __init__(
        self,
        score: Score,
        device: torch.device,
        precision: Precision,
        *,
        max_tokens: int,
        max_sequences: int | None = None,
        longest: int | None = None,
        replays: bool = True,
    ) -> None:
        self._score = score
        self._device = device
        self._precision = precision
        self._max_tokens = max_tokens
        self._max_sequences = max_sequences
        self._longest = longest
        self._replays = replays
        self._recorded: dict[RowShape, Callable[..., Tensor]] = {}

    @torch.inference_mode()
    def __call__(self, batch: MicroBatch) -> list[np.ndarray]:
        """Return the scores of each sequence, float32 (K,) or (its tokens, K), once the device has them.

        Args:
            batch: packed, without rows; a sequence has [CLS] and [SEP], two tokens at least.
        """
        if wants_fixed_shapes(self._device):
            return [scores for part, shape in self._parts(batch) for scores in self._of_rows(part, shape)]
        with self._precision.autocast():
            scores = self._score(PackedBatch.from_numpy(batch, self._device)).float().cpu().numpy()
        if len(scores) == batch.num_sequences:
            return list(scores)
        return np.split(scores, batch.cu_seqlens[1:-1])

    def _parts(self, batch: MicroBatch) -> Iterator[tuple[MicroBatch, RowShape]]:
        """Cut a batch into as many sequences as there are rows."""
        length = max(_SHORTEST, 1 << (int(np.diff(batch.cu_seqlens).max()) - 1).bit_length())
        if self._longest is not None:
            length = min(length, self._longest)
        rows = max(1, self._max_tokens // length)
        if self._max_sequences is not None:
            rows = min(rows, self._max_sequences)
        shape = RowShape(rows, length, slots=1, masked_per_row=1, pad_id=0)
        sizes = [min(rows, batch.num_sequences - first) for first in range(0, batch.num_sequences, rows)]
        for part in split_batch(batch, sizes):
            yield part, shape

    def _of_rows(self, batch: MicroBatch, shape: RowShape) -> list[np.ndarray]:
        """Compute a sequence a row; rows without one hold padding, of which nothing is read."""
        count = batch.num_sequences
        places = RowPlaces(np.arange(count), np.zeros(count, np.int64))
        laid = lay_in_rows(batch, places, shape)
        known = np.minimum(laid.position_ids, batch.position_ids.max())  # of a row of padding the model may have fewer
        rows = PackedBatch.from_numpy(laid._replace(position_ids=known), self._device)
        with self._precision.autocast():
            if not self._replays:
                scores = self._score(rows)
            else:
                if shape not in self._recorded:
                    self._recorded[shape] = replayed(_OfTensors(self._score, rows), self._device)
                scores = self._recorded[shape](*rows.tensors())
        by_place = scores.float().cpu().numpy()
        if len(by_place) == 2 * shape.rows:  # slots: of each row its sequence, and the padding behind it
            return list(by_place[: 2 * count : 2])
        by_row = by_place.reshape(shape.rows, shape.length, -1)
        return [of_row[:length] for of_row, length in zip(by_row, np.diff(batch.cu_seqlens).tolist(), strict=False)]


class _OfTensors(nn.Module):
    """A score as a function of tensors alone, as graphs want it."""

    def __init__(self, score: Score, sample: PackedBatch) -> None:
        super().__init__()
        self._score = score
        self._sample = sample

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._score(self._sample.with_tensors(tensors))
