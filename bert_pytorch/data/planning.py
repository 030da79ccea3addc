"""Which samples one rank computes in an update: a pure function of the position in the stream and the update's number.

Plans are made in order and are cheap: they read lengths at most.  What a plan's samples become, `batch_making` does.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

from bert_pytorch.data.batching import (
    UpdateSize,
    longest_at,
    rows_of_ranks,
    sequences_in_budget,
    sizes_of_ranks,
    update_size,
)
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.dealing import deal_by_count, deal_by_tokens, deal_grouped_by_count
from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, deal_rows
from bert_pytorch.data.grouping import LengthGroupedStream
from bert_pytorch.data.row_packing import pack_lengths
from bert_pytorch.data.sampling import (
    GlobalOrder,
    MixedStream,
    Order,
    Samples,
    SampleStream,
    ShuffledStream,
    WindowOrder,
)


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
    places: list[RowPlaces] | None = None
    """With --packing rows: where each sample lies in its micro-batch."""


class UpdatePlanner:
    """Decides which samples of a stream one rank computes in each update of a phase.

    Args:
        corpora: that are sampled.
        config: of the run.
        row_shape: with --packing rows: that of every micro-batch.
        rank: this rank.
        world_size: number of ranks.
    """

    def __init__(
        self, corpora: Corpora, config: DataConfig, row_shape: RowShape | None, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.corpora = corpora
        self._config = config
        self._row_shape = row_shape
        self._rank = rank
        self._sizes = sizes_of_ranks(config, world_size)
        self._rows = rows_of_ranks(config, corpora.sequence_length, world_size)
        self._stream = sample_stream(corpora, config)

    def plan(self, position: int, number: int) -> UpdatePlan:
        """Decide which samples this rank computes in update `number` of the phase, from 0, after `position` samples."""
        config = self._config
        size = update_size(config, number)
        longest = longest_at(config, number, self.corpora.sequence_length)
        by_length = size.in_tokens or config.max_tokens is not None or config.length_group_updates > 0
        if self._row_shape is None and not by_length:
            return UpdatePlan(self._by_count(position, size.amount), longest, position, position + size.amount)
        samples, lengths = self._drawn(position, size, longest)
        end = position + len(lengths)
        if self._row_shape is not None:
            dealt = deal_samples_in_rows(samples, lengths, self._row_shape, self._rows, self._rank)
            return UpdatePlan([each for each, _ in dealt], longest, position, end, [places for _, places in dealt])
        micro_batches = [self._usable(samples.take(share)) for share in self._shares(lengths)]
        return UpdatePlan(micro_batches, longest, position, end)

    def window_at(self, position: int) -> Hashable:
        """Return what changes when other shards are needed."""
        return self._stream.window_at(position)

    def shards_from(self, position: int) -> list[int]:
        """Return the shards needed from `position` on."""
        return self._stream.shards_from(position)

    def exclude(self, shards: Iterable[str]) -> None:
        """Leave damaged shards out from the next plan on; see `Corpora.exclude`."""
        self.corpora.exclude(shards)
        self._stream = sample_stream(self.corpora, self._config)  # an order by length depends on what is left out

    def _by_count(self, position: int, amount: int) -> list[Samples]:
        """Return this rank's micro-batches where only numbers count: no lengths are read, nor other ranks' samples."""
        shares = deal_by_count(amount, self._sizes, self._rank)
        drawn = self._stream.samples(position + np.concatenate(shares))
        ends = np.cumsum([len(share) for share in shares])[:-1]
        parts = zip(np.split(drawn.epochs, ends), np.split(drawn.indices, ends), strict=True)
        return [self._usable(Samples(*part)) for part in parts]

    def _drawn(self, position: int, size: UpdateSize, longest: int) -> tuple[Samples, np.ndarray]:
        """Return the samples of an update over all ranks, and their lengths."""
        count = size.amount
        if size.in_tokens:  # guess by the longest sequences, then draw more until the budget is full
            count = max(1, size.amount // self.corpora.sequence_length)
        while True:
            samples = self._stream.samples(np.arange(position, position + count))
            lengths = np.minimum(self.corpora.lengths(samples.indices), longest)
            if not size.in_tokens:
                return samples, lengths
            if lengths.sum(dtype=np.int64) > size.amount or count > size.amount:
                fitting = np.arange(sequences_in_budget(lengths, size.amount))
                return samples.take(fitting), lengths[fitting]
            count *= 2

    def _shares(self, lengths: np.ndarray) -> list[np.ndarray]:
        config, where = self._config, (self._sizes, self._rank)
        grouped = config.length_group_updates > 0
        if config.max_tokens is not None:
            return deal_by_tokens(lengths, config.max_tokens, *where, grouped=grouped)
        if grouped:
            return deal_grouped_by_count(lengths, *where)
        return deal_by_count(len(lengths), *where)

    def _usable(self, samples: Samples) -> Samples:
        usable = self.corpora.usable(samples.indices)
        return samples if usable is None else samples.take(usable)


def deal_samples_in_rows(
    samples: Samples, lengths: np.ndarray, shape: RowShape, sizes: tuple[int, ...], rank: int
) -> list[tuple[Samples, RowPlaces]]:
    """Pack samples of all ranks into rows and return this rank's micro-batches; left-out shards take no slot.

    Args:
        samples: of the update.
        lengths: int (n,), their tokens.
        shape: of this rank's micro-batches.
        sizes: rows of a micro-batch of each rank.
        rank: this rank.
    """
    there = np.flatnonzero(lengths)  # those of left-out shards have none
    plan = pack_lengths(lengths[there], shape.length, shape.slots)
    found = []
    for chosen, places in deal_rows(plan, sizes, rank):
        found.append((samples.take(there[chosen]), places))
    return found


def sample_stream(corpora: Corpora, config: DataConfig) -> SampleStream:
    """Return the stream of samples that a configuration asks for."""

    def order(shard_sizes: np.ndarray) -> Order:
        if config.shuffle_window and config.shuffle_window < len(shard_sizes):
            return WindowOrder(shard_sizes, config.shuffle_window, config.seed)
        return GlobalOrder(int(shard_sizes.sum()), config.seed, len(shard_sizes))

    sizes = [source.shard_sizes for source in corpora.sources]
    stream: SampleStream
    if config.mixture_weights:
        shards = np.cumsum([0, *map(len, sizes)]).tolist()
        streams = [
            ShuffledStream(order(each), first_index=index, first_shard=shard)
            for each, index, shard in zip(sizes, corpora.starts.tolist(), shards, strict=False)
        ]
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
