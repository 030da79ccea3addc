"""The loader: updates of a training run, and passes over a held-out set.

An update is a pure function of its position in the stream of samples and of its number in the phase, so that resuming
is asking for another position; threads only compute ahead.  Who calls: `pretraining.run` builds the loaders, `training`
draws from them.
"""

import collections
import contextlib
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from bert_pytorch.data.batching import (
    deal_by_count,
    deal_by_tokens,
    deal_grouped_by_count,
    longest_at,
    refuse_small_budgets,
    rows_of_micro_batch,
    sequences_in_budget,
    update_size,
)
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.curriculum import cut_rows
from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, deal_rows, lay_in_rows, most_masked, no_sequences
from bert_pytorch.data.grouping import LengthGroupedStream
from bert_pytorch.data.masking import MaskingPolicy, sample_keys
from bert_pytorch.data.packing import join_batches, masked_batch, split_batch
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
from bert_pytorch.errors import BertPytorchError, DamagedShardError, WorkerError, explain_os_error
from bert_pytorch.records import IGNORED_LABEL, MicroBatch, Vocabulary

EVALUATION_SEED = 0
"""Held-out masks depend on nothing a run may choose, so that losses of different runs compare."""

_SEQUENCES_AT_ONCE = 2048
"""Enough that NumPy's cost of a call does not count, few enough for the processor's cache."""
_SEQUENCES_PLANNED = 1 << 16
"""Held-out sequences that are packed into rows together; the last rows of each such stretch are not full."""


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
    places: list[RowPlaces] | None = None
    """With --packing rows: where each sample lies in its micro-batch."""


class BatchMaker:
    """Reads, cuts, packs and masks samples."""

    def __init__(
        self, corpora: Corpora, vocabulary: Vocabulary | None, policy: MaskingPolicy | None, *, next_sentence: bool
    ) -> None:
        self.corpora = corpora
        self._policy = policy
        self._next_sentence = next_sentence
        self._is_special = _special_table(vocabulary) if vocabulary is not None else np.zeros(0)
        self._pad_id = 0 if vocabulary is None else vocabulary.pad_id

    def row_shape(self, rows: int, slots: int) -> RowShape:
        """Return the shape of micro-batches of so many rows, each of at most `slots` sequences.

        The rows are as long as the longest corpus's, whatever a curriculum cuts.
        """
        assert self._policy is not None
        length = self.corpora.sequence_length
        static = any(source.static for source in self.corpora.sources)
        masked = rows * most_masked(length, slots, self._policy, static=static)
        return RowShape(rows, length, slots, masked, self._pad_id)

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

    def make_all(self, seed: int, micro_batches: list[Samples], longest: int | None = None) -> list[MicroBatch]:
        """Return several micro-batches, the same as `make` one by one; small ones are made together, then cut apart."""
        if len(self.corpora.sources) > 1:
            return [self.make(seed, samples, longest) for samples in micro_batches]
        made: list[MicroBatch] = []
        for group in _of_about(micro_batches, _SEQUENCES_AT_ONCE):
            sizes = [len(samples.indices) for samples in group]
            if min(sizes) == 0 or len(group) == 1:
                made += [self.make(seed, samples, longest) for samples in group]
                continue
            whole = Samples(*(np.concatenate(each) for each in zip(*group, strict=True)))
            made += split_batch(self.make(seed, whole, longest), sizes)
        return made

    def make_rows(
        self,
        seed: int,
        micro_batches: list[Samples],
        places: list[RowPlaces],
        shape: RowShape,
        longest: int | None = None,
    ) -> list[MicroBatch]:
        """Return micro-batches as `make_all` does, in fixed form; one without samples has rows of padding only.

        Raises:
            InputError: if more tokens are masked than `shape` has places for.
        """
        filled = [samples for samples in micro_batches if len(samples.indices)]
        made = iter(self.make_all(seed, filled, longest))
        laid = []
        for samples, where in zip(micro_batches, places, strict=True):
            if len(samples.indices) == 0:
                laid.append(lay_in_rows(no_sequences(next_sentence=self._next_sentence), where, shape))
                continue
            by_corpus = np.concatenate([part.which for part in self.corpora.parts(samples.indices)])
            laid.append(lay_in_rows(next(made), where.take(by_corpus), shape))
        return laid

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
        self.batches = batches
        self.config = config
        self._rank = rank
        self._world_size = world_size
        self._stream = sample_stream(self.corpora, config)
        self._window: Hashable = None
        self.row_shape: RowShape | None = None
        if config.packing == "rows":
            rows = rows_of_micro_batch(config, self.corpora.sequence_length)
            self.row_shape = batches.row_shape(rows, config.max_sequences_per_row)

    def plan(self, position: int, number: int) -> UpdatePlan:
        """Decide which samples this rank computes in update `number` of the phase, from 0, after `position` samples."""
        config = self.config
        self._expect_shards(position)
        size = update_size(config, number)
        longest = longest_at(config, number, self.corpora.sequence_length)
        if self.row_shape is not None:
            samples, lengths = self._drawn(position, size.amount, size.in_tokens, longest)
            dealt = _in_rows(samples, lengths, self.row_shape, self._rank, self._world_size)
            return UpdatePlan(
                [each for each, _ in dealt], longest, position, position + len(lengths), [places for _, places in dealt]
            )
        by_length = size.in_tokens or config.max_tokens is not None or config.length_group_updates > 0
        if not by_length:
            shares = deal_by_count(size.amount, config.local_batch_size, self._rank, self._world_size)
            drawn = self._stream.samples(position + np.concatenate(shares))
            ends = np.cumsum([len(share) for share in shares])[:-1]
            parts = zip(np.split(drawn.epochs, ends), np.split(drawn.indices, ends), strict=True)
            micro_batches = [self._usable(Samples(*part)) for part in parts]
            return UpdatePlan(micro_batches, longest, position, position + size.amount)
        samples, lengths = self._drawn(position, size.amount, size.in_tokens, longest)
        shares = self._shares(lengths)
        micro_batches = [self._usable(samples.take(share)) for share in shares]
        return UpdatePlan(micro_batches, longest, position, position + len(lengths))

    def update_at(self, position: int, number: int = 0) -> Update:
        """Return the update that begins after `position` samples: the same whatever came before or runs beside."""
        return self._make(self.plan(position, number))

    def stream(self, position: int, number: int = 0) -> Iterator[Update]:
        """Yield the updates from `position` on, without end; `number` updates of the phase are done.

        What cannot be made is raised in its turn, after the updates before it, however many are made ahead.

        Raises:
            DamagedShardError: naming file and row.
            WorkerError: naming the update, and why it could not be read.
        """
        workers = self.config.num_workers
        while not workers:
            update = self._finished(self._planned(position, number), number)
            yield update
            position, number = update.end_position, number + 1
        ahead: collections.deque[Future[Update]] = collections.deque()
        failed: Exception | None = None
        pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        try:
            while True:
                while failed is None and len(ahead) < workers:
                    try:
                        if self._window_at(position) != self._window:
                            wait(ahead)  # planning lets go of the shards that these are made from
                        plan = self._planned(position, number)
                    except Exception as error:
                        failed = error
                    else:
                        ahead.append(pool.submit(self._finished, plan, number))
                        position, number = plan.end, number + 1
                if failed is not None and not ahead:
                    raise failed
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def exclude(self, shards: Iterable[str]) -> None:
        """Leave damaged shards out from the next plan on; see `Corpora.exclude`."""
        self.corpora.exclude(shards)
        self._stream = sample_stream(self.corpora, self.config)  # an order by length depends on what is left out

    def _planned(self, position: int, number: int) -> UpdatePlan:
        with _told(f"update {number + 1} of the phase, from sample {position:,}"):
            return self.plan(position, number)

    def _finished(self, plan: UpdatePlan, number: int) -> Update:
        with _told(f"update {number + 1} of the phase, samples {plan.start:,} to {plan.end - 1:,}"):
            return self._make(plan)

    def _expect_shards(self, position: int) -> None:
        window = self._window_at(position)
        if window != self._window:
            self._window = window
            self.corpora.expect(self._stream.shards_from(position))

    def _window_at(self, position: int) -> Hashable:
        return (self._stream.window_at(position),)

    def _make(self, plan: UpdatePlan) -> Update:
        seed = self.config.seed
        if plan.places is None:
            micro_batches = self.batches.make_all(seed, plan.micro_batches, plan.longest)
        else:
            assert self.row_shape is not None
            micro_batches = self.batches.make_rows(seed, plan.micro_batches, plan.places, self.row_shape, plan.longest)
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
        config, where = self.config, (self._rank, self._world_size)
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
    """One pass over a held-out set in file order, always with the same masks, shared among ranks.

    Args:
        batches: makes micro-batches of the set.
        batch_size: sequences of a micro-batch at most, or its rows.
        sequences_per_row: most sequences of a row of fixed length; None packs without rows and padding.
        rank: this rank.
        world_size: number of ranks.
    """

    def __init__(
        self,
        batches: BatchMaker,
        *,
        batch_size: int,
        sequences_per_row: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._batches = batches
        self._row_shape = None if sequences_per_row is None else batches.row_shape(batch_size, sequences_per_row)
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._shard = 0

    @property
    def corpora(self) -> Corpora:
        """The set that is passed over."""
        return self._batches.corpora

    def __iter__(self) -> Iterator[MicroBatch]:
        """Yield this rank's micro-batches; the number is the same on every rank."""
        if self._row_shape is not None:
            yield from self._in_rows(self._row_shape)
            return
        total, step = self.corpora.num_sequences, self._batch_size * self._world_size
        for start in range(0, total, step):
            self._expect_shards(start)
            indices = np.arange(start + self._rank, min(start + step, total), self._world_size)
            samples = Samples(np.zeros_like(indices), indices)
            usable = self.corpora.usable(indices)
            yield self._batches.make(EVALUATION_SEED, samples if usable is None else samples.take(usable))

    def _expect_shards(self, start: int) -> None:
        """Say that what lies before row `start` was read, where that is so of whole shards."""
        ends = np.cumsum(np.concatenate([source.shard_sizes for source in self.corpora.sources]))
        shard = int(np.searchsorted(ends, start, side="right"))
        if start == 0 or shard != self._shard:
            self._shard = shard
            self.corpora.expect(range(shard, len(ends)))

    def _in_rows(self, shape: RowShape) -> Iterator[MicroBatch]:
        total = self.corpora.num_sequences
        for start in range(0, total, _SEQUENCES_PLANNED):
            self._expect_shards(start)
            indices = np.arange(start, min(start + _SEQUENCES_PLANNED, total))
            samples, lengths = Samples(np.zeros_like(indices), indices), self.corpora.lengths(indices)
            for each, places in _in_rows(samples, lengths, shape, self._rank, self._world_size):
                yield from self._batches.make_rows(EVALUATION_SEED, [each], [places], shape)


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


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say of a failure, which may be a thread's, what was being made; a defect of our own keeps its traceback."""
    try:
        yield
    except DamagedShardError:
        raise
    except (BertPytorchError, OSError) as error:
        reason = explain_os_error(error) if isinstance(error, OSError) else str(error)
        raise WorkerError(f"{reason} (Met when making {what}.)") from error
    except Exception as error:
        error.add_note(f"while making {what}")
        raise


def _in_rows(
    samples: Samples, lengths: np.ndarray, shape: RowShape, rank: int, world_size: int
) -> list[tuple[Samples, RowPlaces]]:
    """Pack samples of all ranks into rows and return this rank's micro-batches; left-out shards take no slot."""
    there = np.flatnonzero(lengths)  # those of left-out shards have none
    plan = pack_lengths(lengths[there], shape.length, shape.slots)
    found = []
    for chosen, places in deal_rows(plan, shape.rows, rank, world_size):
        found.append((samples.take(there[chosen]), places))
    return found


def _of_about(micro_batches: list[Samples], size: int) -> Iterator[list[Samples]]:
    """Yield runs of micro-batches of about `size` samples together."""
    group: list[Samples] = []
    for samples in micro_batches:
        if group and sum(len(one.indices) for one in group) + len(samples.indices) > size:
            yield group
            group = []
        group.append(samples)
    if group:
        yield group


def _special_table(vocabulary: Vocabulary) -> np.ndarray:
    table = np.zeros(len(vocabulary.tokens), dtype=bool)
    table[list(vocabulary.structural_ids)] = True
    return table


def _without_labels(batch: MicroBatch) -> MicroBatch:
    none = np.zeros(0, dtype=np.int64)
    pairs = None if batch.next_sentence_labels is None else np.full(batch.num_sequences, IGNORED_LABEL, dtype=np.int64)
    return batch._replace(masked_positions=none, labels=none, next_sentence_labels=pairs)
