"""From a part's features to packed micro-batches: which sequences an update takes, on which rank, cut how."""
# n sequences of a part; B of a micro-batch, T tokens together

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bert_pytorch.data.grouping import LengthGroupedStream
from bert_pytorch.data.sampling import GlobalOrder, Samples, SampleStream, ShuffledStream
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.records import MicroBatch
from bert_pytorch.tasks.features import Features, packed
from bert_pytorch.training.updates import Exclusion


class TaskBatch(NamedTuple):
    """Sequences for one forward and backward pass on one rank."""

    inputs: MicroBatch
    """B sequences, nothing masked."""
    labels: np.ndarray | None
    """Of these sequences, or of their tokens, as `Features.labels`."""
    sequences: np.ndarray
    """int64 (B,), their numbers in the part."""

    @property
    def num_tokens(self) -> int:
        """Tokens: T."""
        return self.inputs.num_tokens


class TaskUpdate(NamedTuple):
    """What one rank computes in one optimizer update."""

    micro_batches: list[TaskBatch]
    """As many on every rank; one is empty of sequences where the batch is smaller than the ranks need."""
    epoch: int
    """The pass over the part that the update's last sequence belongs to, from 0."""
    end_position: int
    """Sequences consumed once this update is done, over all ranks."""
    num_sequences: int
    """Sequences of this update over all ranks."""


def take(features: Features, sequences: np.ndarray) -> TaskBatch:
    """Lay chosen sequences end to end.

    Args:
        features: of the part.
        sequences: int64 (B,), in any order; B may be 0.
    """
    inputs, tokens = packed(features, sequences)
    labels = features.labels
    if labels is not None:
        labels = labels[tokens if len(labels) == len(features.input_ids) else sequences]
    return TaskBatch(inputs, labels, sequences)


class TaskFeed:
    """The updates of a run, for one rank: a pure function of the position among all sequences consumed.

    Args:
        features: of the training part; the same on every rank.
        config: batch sizes, seed.
        rank: of this process.
        world_size: ranks.
    """

    def __init__(self, features: Features, config: FinetuningConfig, *, rank: int = 0, world_size: int = 1) -> None:
        self._features = features
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._num_sequences = len(features.examples)
        stream: SampleStream = ShuffledStream(GlobalOrder(self._num_sequences, config.seed))
        if config.length_group_updates > 1:
            updates, size = config.length_group_updates, config.train_batch_size
            stream = LengthGroupedStream(stream, self._lengths_of, updates, size, config.seed)
        self._stream = stream

    def update(self, position: int, number: int) -> TaskUpdate:
        """Return the update that begins after `position` sequences; its number does not matter."""
        size = self._config.train_batch_size
        chosen = self._stream.samples(np.arange(position, position + size)).indices
        shares = deal(
            self._features.lengths[chosen],
            ranks=self._world_size,
            at_least=self._config.gradient_accumulation_steps,
            max_tokens=self._config.max_tokens,
        )
        batches = [take(self._features, chosen[share]) for share in shares[self._rank]]
        end = position + size
        return TaskUpdate(batches, (end - 1) // self._num_sequences, end, size)

    def new_exclusions(self) -> list[Exclusion]:
        """Return nothing: a file that is damaged stops the run before its first update."""
        return []

    def close(self) -> None:
        """Nothing computes ahead: an update is made in a millisecond."""

    def _lengths_of(self, samples: Samples) -> np.ndarray:
        return self._features.lengths[samples.indices]


def deal(lengths: np.ndarray, *, ranks: int, at_least: int, max_tokens: int) -> list[list[np.ndarray]]:
    """Deal an update's sequences to ranks and micro-batches, as to cards: the longest first, one to each in turn.

    So all have about as many tokens, and every rank has as many micro-batches.

    Args:
        lengths: int64 (n,), each at most `max_tokens`.
        ranks: W.
        at_least: micro-batches of a rank at least, where there are as many sequences.
        max_tokens: of a micro-batch at most.

    Returns:
        For each rank, for each micro-batch, the places of its sequences: int64; empty where they do not suffice.
    """
    order = np.argsort(-lengths, kind="stable")
    most = math.ceil(len(lengths) / ranks)
    pieces = min(max(at_least, math.ceil(int(lengths.sum()) / (ranks * max_tokens))), most)
    while pieces < most and lengths[order[:: ranks * pieces]].sum() > max_tokens:  # the first has the most tokens
        pieces += 1
    return [[order[rank + ranks * piece :: ranks * pieces] for piece in range(pieces)] for rank in range(ranks)]


def passes(features: Features, config: FinetuningConfig, *, rank: int, world_size: int) -> Iterator[TaskBatch]:
    """Yield this rank's batches of one pass over a part, as many on every rank; sequences of similar lengths together.

    Args:
        features: of the part.
        config: batch sizes.
        rank: of this process.
        world_size: ranks.
    """
    order = np.argsort(-features.lengths, kind="stable")
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        longest = int(features.lengths[order[start]])
        size = max(1, min(config.predict_batch_size, config.max_tokens // longest))
        batches.append(order[start : start + size])
        start += size
    for turn in range(math.ceil(len(batches) / world_size)):
        mine = turn * world_size + rank
        yield take(features, batches[mine] if mine < len(batches) else order[:0])
