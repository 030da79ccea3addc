"""The loader: updates of a training run, and passes over a held-out set.

An update is a pure function of its position in the stream of samples and of its number in the phase, so that resuming
is asking for another position; threads only compute ahead.  Who calls: `pretraining.run` builds the loaders, `training`
draws from them.
"""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from bert_pytorch.data.batching import (
    deal_by_count,
    deal_by_tokens,
    deal_grouped_by_count,
    longest_at,
    refuse_small_budgets,
    sequences_in_budget,
    update_size,
)
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.curriculum import cut_rows
from bert_pytorch.data.grouping import LengthGroupedStream
from bert_pytorch.data.masking import MaskingPolicy, sample_keys
from bert_pytorch.data.packing import join_batches, masked_batch
from bert_pytorch.data.sampling import (
    GlobalOrder,
    MixedStream,
    Order,
    Samples,
    SampleStream,
    ShuffledStream,
    WindowOrder,
)
from bert_pytorch.records import IGNORED_LABEL, MicroBatch, Vocabulary

EVALUATION_SEED = 0
"""Held-out masks depend on nothing a run may choose, so that losses of different runs compare."""


class Update(NamedTuple):
    """What one rank computes in one optimizer update."""

    micro_batches: list[MicroBatch]
    """As many on every rank; one may be empty of sequences where the batch is smaller than the ranks need."""
    epoch: int
    """The pass over the data that the update's last sample belongs to, from 0."""
    start_position: int
    """Samples consumed before this update, over all ranks."""
    end_position: int
    """Samples consumed once this update is done, over all ranks."""

    @property
    def num_sequences(self) -> int:
        """Samples of this update over all ranks."""
        return self.end_position - self.start_position

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


class UpdatePlan(NamedTuple):
    """Which samples one rank computes in an update, before any of them is read."""

    micro_batches: list[Samples]
    """The samples of each."""
    longest: int
    """Tokens that a sequence may have; longer ones are cut."""
    start: int
    """Samples consumed before, over all ranks."""
    end: int
    """Samples consumed after, over all ranks."""


class BatchMaker:
    """Reads, cuts, packs and masks samples."""

    def __init__(
        self, corpora: Corpora, vocabulary: Vocabulary | None, policy: MaskingPolicy | None, *, next_sentence: bool
    ) -> None:
        self.corpora = corpora
        self._policy = policy
        self._next_sentence = next_sentence
        self._is_special = _special_table(vocabulary) if vocabulary is not None else np.zeros(0)

    def make(self, seed: int, samples: Samples, longest: int | None = None) -> MicroBatch:
        """Return a micro-batch of samples; an empty choice gives a stand-in that adds nothing to any loss.

        Args:
            seed: of the masks.
            samples: of one micro-batch.
            longest: tokens that a sequence may have, as in `UpdatePlan`; None cuts nothing.
        """
        if len(samples.indices) == 0:
            return _without_labels(self.make(seed, Samples(np.zeros(1, np.int64), self._any_sample()), longest))
        keys = sample_keys(seed, samples.epochs, samples.indices)
        batches = []
        for part in self.corpora.parts(samples.indices):
            rows = part.source.rows(part.indices)
            if longest is not None and longest < rows.input_ids.shape[1]:
                rows = cut_rows(rows, longest)
            policy = None if part.source.static else self._policy
            batches.append(
                masked_batch(rows, keys[part.which], policy, self._is_special, next_sentence=self._next_sentence)
            )
        return batches[0] if len(batches) == 1 else join_batches(batches)

    def _any_sample(self) -> np.ndarray:
        """Return a sample that can be read, int64 (1,)."""
        for source, start in zip(self.corpora.sources, self.corpora.starts, strict=True):
            firsts = np.cumsum(source.shard_sizes) - source.shard_sizes
            for shard in range(len(firsts)):
                if shard not in source.excluded:
                    return np.asarray([start + firsts[shard]], np.int64)
        raise AssertionError("Corpora.exclude leaves one")


class TrainingLoader:
    """All updates of a phase, for one rank."""

    def __init__(self, batches: BatchMaker, config: DataConfig, *, rank: int = 0, world_size: int = 1) -> None:
        self.corpora = batches.corpora
        refuse_small_budgets(config, self.corpora.sequence_length)
        self._batches = batches
        self._config = config
        self._rank = rank
        self._world_size = world_size
        self._stream = sample_stream(self.corpora, config)

    def plan(self, position: int, number: int) -> UpdatePlan:
        """Decide which samples this rank computes in update `number` of the phase, from 0, after `position` samples."""
        config = self._config
        size = update_size(config, number)
        longest = longest_at(config, number, self.corpora.sequence_length)
        by_length = size.in_tokens or config.max_tokens is not None or config.length_group_updates > 0
        if not by_length:
            shares = deal_by_count(size.amount, config.local_batch_size, self._rank, self._world_size)
            micro_batches = [self._usable(self._stream.samples(position + share)) for share in shares]
            return UpdatePlan(micro_batches, longest, position, position + size.amount)
        samples, lengths = self._drawn(position, size.amount, size.in_tokens, longest)
        shares = self._shares(lengths)
        micro_batches = [self._usable(samples.take(share)) for share in shares]
        return UpdatePlan(micro_batches, longest, position, position + len(lengths))

    def update_at(self, position: int, number: int = 0) -> Update:
        """Return the update that begins after `position` samples: the same whatever came before or runs beside."""
        return self._make(self.plan(position, number))

    def stream(self, position: int, number: int = 0) -> Iterator[Update]:
        """Yield the updates from `position` on, without end; `number` updates of the phase are done."""
        workers = self._config.num_workers
        pool = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="loader") if workers else None
        ahead: collections.deque[Future[Update]] = collections.deque()
        try:
            while True:
                plan = self.plan(position, number)
                position, number = plan.end, number + 1
                if pool is None:
                    yield self._make(plan)
                    continue
                ahead.append(pool.submit(self._make, plan))
                if len(ahead) == workers:
                    yield ahead.popleft().result()
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)

    def exclude(self, files: Iterable[str]) -> None:
        """Leave damaged shards out from the next plan on; see `Corpora.exclude`."""
        self.corpora.exclude(files)

    def _make(self, plan: UpdatePlan) -> Update:
        micro_batches = [self._batches.make(self._config.seed, samples, plan.longest) for samples in plan.micro_batches]
        return Update(micro_batches, (plan.end - 1) // self.corpora.num_sequences, plan.start, plan.end)

    def _drawn(self, position: int, amount: int, in_tokens: bool, longest: int) -> tuple[Samples, np.ndarray]:
        """Return the samples of an update over all ranks, and their lengths."""
        count = amount
        if in_tokens:  # guess by the longest sequences, then draw more until the budget is full
            count = max(1, amount // self.corpora.sequence_length)
        while True:
            samples = self._stream.samples(np.arange(position, position + count))
            lengths = np.minimum(self.corpora.lengths(samples.indices), longest)
            if not in_tokens:
                return samples, lengths
            if lengths.sum(dtype=np.int64) > amount or count > amount:
                fitting = np.arange(sequences_in_budget(lengths, amount))
                return samples.take(fitting), lengths[fitting]
            count *= 2

    def _shares(self, lengths: np.ndarray) -> list[np.ndarray]:
        config, where = self._config, (self._rank, self._world_size)
        grouped = config.length_group_updates > 0
        if config.max_tokens is not None:
            return deal_by_tokens(lengths, config.max_tokens, *where, grouped)
        if grouped:
            return deal_grouped_by_count(lengths, config.local_batch_size, *where)
        return deal_by_count(len(lengths), config.local_batch_size, *where)

    def _usable(self, samples: Samples) -> Samples:
        usable = self.corpora.usable(samples.indices)
        return samples if usable is None else samples.take(usable)


class EvaluationLoader:
    """One pass over a held-out set in file order, always with the same masks, shared among ranks."""

    def __init__(self, batches: BatchMaker, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._batches = batches
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    @property
    def corpora(self) -> Corpora:
        """The set that is passed over."""
        return self._batches.corpora

    def __iter__(self) -> Iterator[MicroBatch]:
        """Yield this rank's micro-batches; the number is the same on every rank."""
        total, step = self.corpora.num_sequences, self._batch_size * self._world_size
        for start in range(0, total, step):
            indices = np.arange(start + self._rank, min(start + step, total), self._world_size)
            samples = Samples(np.zeros_like(indices), indices)
            usable = self.corpora.usable(indices)
            yield self._batches.make(EVALUATION_SEED, samples if usable is None else samples.take(usable))


def sample_stream(corpora: Corpora, config: DataConfig) -> SampleStream:
    """Return the stream of samples that a configuration asks for."""

    def order(shard_sizes: np.ndarray) -> Order:
        if config.shuffle_window and config.shuffle_window < len(shard_sizes):
            return WindowOrder(shard_sizes, config.shuffle_window, config.seed)
        return GlobalOrder(int(shard_sizes.sum()), config.seed)

    sizes = [source.shard_sizes for source in corpora.sources]
    stream: SampleStream
    if config.mixture_weights:
        starts = corpora.starts.tolist()
        streams = [ShuffledStream(order(each), start) for each, start in zip(sizes, starts, strict=True)]
        stream = MixedStream(streams, config.mixture_weights, config.seed)
    else:
        stream = ShuffledStream(order(np.concatenate(sizes)))
    if config.length_group_updates > 1:
        return LengthGroupedStream(
            stream,
            lambda samples: corpora.lengths(samples.indices),
            config.length_group_updates,
            config.global_batch_size
            if config.global_batch_tokens is None
            else max(1, config.global_batch_tokens // corpora.sequence_length),
            config.seed,
        )
    return stream


def _special_table(vocabulary: Vocabulary) -> np.ndarray:
    table = np.zeros(len(vocabulary.tokens), dtype=bool)
    table[list(vocabulary.structural_ids)] = True
    return table


def _without_labels(batch: MicroBatch) -> MicroBatch:
    none = np.zeros(0, dtype=np.int64)
    pairs = None if batch.next_sentence_labels is None else np.full(batch.num_sequences, IGNORED_LABEL, dtype=np.int64)
    return batch._replace(masked_positions=none, labels=none, next_sentence_labels=pairs)
