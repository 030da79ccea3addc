"""Passes over a held-out set: every sequence exactly once, always with the same masks, shared among ranks."""

from collections.abc import Iterator

import numpy as np

from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.batching import refuse_small_budgets, rows_of_ranks, sizes_of_ranks
from bert_pytorch.data.config import BatchConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.dealing import budgets_of, deal_by_tokens, share_of
from bert_pytorch.data.planning import deal_samples_in_rows
from bert_pytorch.data.sampling import Samples
from bert_pytorch.records import MicroBatch

EVALUATION_SEED = 0
"""Held-out masks depend on nothing a run may choose, so that losses of different runs compare."""

_SEQUENCES_PLANNED = 1 << 16
"""Sequences whose lengths are read together, and that are packed into rows together."""
_MICRO_BATCHES_PLANNED = 32
"""Micro-batches of a rank that share a budget's sequences among them; the more there are, the fuller each can be."""


class EvaluationLoader:
    """One pass over a held-out set in about file order, for one rank.

    Micro-batches are bounded as those of training are: by --local_batch_size, or --max_tokens where it is given, or
    in rows.  Their number is the same on every rank; one may be empty of sequences.

    Args:
        batches: makes micro-batches of the set.
        config: how micro-batches are bounded.
        rank: this rank.
        world_size: number of ranks.
    """

    def __init__(self, batches: BatchMaker, config: BatchConfig, *, rank: int = 0, world_size: int = 1) -> None:
        self._batches = batches
        self._config = config
        self._rank = rank
        self._sizes = sizes_of_ranks(config, world_size)
        self._shard = 0
        length = self.corpora.sequence_length
        refuse_small_budgets(config, length, self._sizes, updates=False)
        self._row_shape = None
        self._rows = rows_of_ranks(config, length, world_size)
        if config.packing == "rows":
            self._row_shape = batches.row_shape(self._rows[rank], config.max_sequences_per_row)

    @property
    def corpora(self) -> Corpora:
        """The set that is passed over."""
        return self._batches.corpora

    def __iter__(self) -> Iterator[MicroBatch]:
        """Yield this rank's micro-batches."""
        if self._row_shape is not None or self._config.max_tokens is not None:
            return self._by_length()
        return self._by_count()

    def _by_count(self) -> Iterator[MicroBatch]:
        total, step = self.corpora.num_sequences, sum(self._sizes)
        for start in range(0, total, step):
            self._expect_shards(start)
            indices = start + share_of(min(step, total - start), self._sizes, self._rank)
            usable = self.corpora.usable(indices)
            samples = _first_pass(indices if usable is None else indices[usable])
            yield self._batches.make(EVALUATION_SEED, samples)

    def _by_length(self) -> Iterator[MicroBatch]:
        """Plan stretches of the set together, by lengths; sequences of shards that are left out have none."""
        total = self.corpora.num_sequences
        for start in range(0, total, _SEQUENCES_PLANNED):
            self._expect_shards(start)
            indices = np.arange(start, min(start + _SEQUENCES_PLANNED, total))
            lengths = self.corpora.lengths(indices)
            samples, lengths = _first_pass(indices[lengths > 0]), lengths[lengths > 0]
            yield from self._in_rows(samples, lengths) if self._row_shape else self._in_budgets(samples, lengths)

    def _in_rows(self, samples: Samples, lengths: np.ndarray) -> Iterator[MicroBatch]:
        shape = self._row_shape
        assert shape is not None
        for each, places in deal_samples_in_rows(samples, lengths, shape, self._rows, self._rank):
            yield from self._batches.make_rows(EVALUATION_SEED, [each], [places], shape)

    def _in_budgets(self, samples: Samples, lengths: np.ndarray) -> Iterator[MicroBatch]:
        budget = self._config.max_tokens
        assert budget is not None
        before = np.cumsum(lengths, dtype=np.int64) - lengths
        stretches = before // (_MICRO_BATCHES_PLANNED * int(budgets_of(budget, self._sizes).sum()))
        for stretch in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(stretches)) + 1):
            for share in deal_by_tokens(lengths[stretch], budget, self._sizes, self._rank, grouped=False):
                yield self._batches.make(EVALUATION_SEED, samples.take(stretch[np.sort(share)]))

    def _expect_shards(self, start: int) -> None:
        """Say that what lies before row `start` was read, where that is so of whole shards."""
        ends = np.cumsum(np.concatenate([source.shard_sizes for source in self.corpora.sources]))
        shard = int(np.searchsorted(ends, start, side="right"))
        if start == 0 or shard != self._shard:
            self._shard = shard
            self.corpora.expect(range(shard, len(ends)))


def _first_pass(indices: np.ndarray) -> Samples:
    return Samples(np.zeros_like(indices), indices)
