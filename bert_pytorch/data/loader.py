"""The loader: updates of a training run, and passes over a held-out set.

An update is a pure function of its position in the stream of samples, so that resuming is asking for another position;
threads only compute ahead.  Who calls: `pretraining.run` builds the loaders, `training` draws from them.
"""

import collections
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.data.masking import MaskingPolicy, sample_keys
from bert_pytorch.data.packing import masked_batch
from bert_pytorch.data.sampling import micro_batch_slices, samples_at
from bert_pytorch.records import IGNORED_LABEL, MicroBatch, Vocabulary
from bert_pytorch.shards.shard_set import ShardSet

EVALUATION_SEED = 0
"""Held-out masks depend on nothing a run may choose, so that losses of different runs compare."""


class LoaderConfig(Settings):
    """How batches are made ready."""

    num_workers: int = Field(2, ge=0)
    """Threads that make the next updates ready while the model computes; 0 makes each when it is needed."""


class Update(NamedTuple):
    """What one rank computes in one optimizer update."""

    micro_batches: list[MicroBatch]
    """As many on every rank; one may be empty of sequences where the batch is smaller than the ranks need."""
    epoch: int
    """The pass over the data that the update's last sample belongs to, from 0."""
    end_position: int
    """Samples consumed once this update is done, over all ranks."""

    @property
    def num_masked(self) -> int:
        """Masked tokens on this rank."""
        return sum(batch.num_masked for batch in self.micro_batches)

    @property
    def num_pairs(self) -> int:
        """Next-sentence labels on this rank."""
        return sum(batch.num_pairs for batch in self.micro_batches)

    @property
    def num_tokens(self) -> int:
        """Real tokens on this rank."""
        return sum(batch.num_tokens for batch in self.micro_batches)


class BatchMaker:
    """Reads, packs and masks rows of one shard set."""

    def __init__(
        self, shards: ShardSet, vocabulary: Vocabulary | None, policy: MaskingPolicy | None, *, next_sentence: bool
    ) -> None:
        self.shards = shards
        self._policy = None if shards.static else policy
        self._next_sentence = next_sentence
        self._is_special = _special_table(vocabulary) if not shards.static and vocabulary is not None else np.zeros(0)

    def make(self, seed: int, epochs: np.ndarray, indices: np.ndarray) -> MicroBatch:
        """Return a micro-batch of samples; an empty choice gives a stand-in that adds nothing to any loss.

        Args:
            seed: of the masks.
            epochs: int64 (n,), part of each sample's mask key.
            indices: int64 (n,), rows of the shard set.
        """
        if len(indices) == 0:
            return _without_labels(self.make(seed, np.zeros(1, np.int64), np.zeros(1, np.int64)))
        rows = self.shards.rows(indices)
        keys = sample_keys(seed, epochs, indices)
        return masked_batch(rows, keys, self._policy, self._is_special, next_sentence=self._next_sentence)


class TrainingLoader:
    """All updates of a phase, for one rank."""

    def __init__(
        self,
        batches: BatchMaker,
        *,
        seed: int,
        global_batch_size: int,
        local_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self._batches = batches
        self._seed = seed
        self._global_batch_size = global_batch_size
        self._rank = rank
        self._world_size = world_size
        self._slices = micro_batch_slices(global_batch_size, local_batch_size, rank, world_size)
        self._num_workers = num_workers

    def update_at(self, position: int) -> Update:
        """Return the update that begins after `position` samples: the same whatever came before or runs beside."""
        end = position + self._global_batch_size
        mine = np.arange(position + self._rank, end, self._world_size)
        samples = samples_at(mine, self._batches.shards.num_sequences, self._seed)
        micro_batches = [
            self._batches.make(self._seed, samples.epochs[chosen], samples.indices[chosen]) for chosen in self._slices
        ]
        epoch = (end - 1) // self._batches.shards.num_sequences
        return Update(micro_batches, epoch, end)

    def stream(self, position: int) -> Iterator[Update]:
        """Yield the updates from `position` on, without end."""
        if self._num_workers == 0:
            while True:
                yield self.update_at(position)
                position += self._global_batch_size
        pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="loader")
        ahead: collections.deque[Future[Update]] = collections.deque()
        try:
            while True:
                while len(ahead) < self._num_workers:
                    ahead.append(pool.submit(self.update_at, position))
                    position += self._global_batch_size
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class EvaluationLoader:
    """One pass over a held-out set in file order, always with the same masks, shared among ranks."""

    def __init__(self, batches: BatchMaker, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._batches = batches
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    @property
    def shards(self) -> ShardSet:
        """The set that is passed over."""
        return self._batches.shards

    def __iter__(self) -> Iterator[MicroBatch]:
        """Yield this rank's micro-batches; the number is the same on every rank."""
        total, step = self._batches.shards.num_sequences, self._batch_size * self._world_size
        for start in range(0, total, step):
            indices = np.arange(start + self._rank, min(start + step, total), self._world_size)
            yield self._batches.make(EVALUATION_SEED, np.zeros_like(indices), indices)


def _special_table(vocabulary: Vocabulary) -> np.ndarray:
    table = np.zeros(len(vocabulary.tokens), dtype=bool)
    table[list(vocabulary.structural_ids)] = True
    return table


def _without_labels(batch: MicroBatch) -> MicroBatch:
    none = np.zeros(0, dtype=np.int64)
    pairs = None if batch.next_sentence_labels is None else np.full(batch.num_sequences, IGNORED_LABEL, dtype=np.int64)
    return batch._replace(masked_positions=none, labels=none, next_sentence_labels=pairs)
