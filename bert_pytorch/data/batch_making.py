"""Micro-batches of chosen samples: read, cut, packed, masked, and laid in rows where shapes are fixed."""

import logging
from collections.abc import Iterator

import numpy as np

from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.curriculum import cut_rows
from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows, most_masked, no_sequences
from bert_pytorch.data.masking import MaskingPolicy, sample_keys
from bert_pytorch.data.packing import join_batches, masked_batch, split_batch
from bert_pytorch.data.sampling import Samples
from bert_pytorch.records import IGNORED_LABEL, MicroBatch, Vocabulary

logger = logging.getLogger(__name__)

_SEQUENCES_AT_ONCE = 2048
"""Enough that NumPy's cost of a call does not count, few enough for the processor's cache."""


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
        self._told_surplus = False

    def row_shape(self, rows: int, slots: int) -> RowShape:
        """Return the shape of micro-batches of so many rows, each of at most `slots` sequences.

        The rows are as long as the longest corpus's, whatever a curriculum cuts.  A rank that takes none has one, of
        padding.
        """
        assert self._policy is not None
        length = self.corpora.sequence_length
        static = any(source.static for source in self.corpora.sources)
        return RowShape(
            max(rows, 1), length, slots, most_masked(length, slots, self._policy, static=static), self._pad_id
        )

    def make(self, seed: int, samples: Samples, longest: int | None = None) -> MicroBatch:
        """Return a micro-batch of samples; an empty choice gives a stand-in that adds nothing to any loss or count.

        Args:
            seed: of the masks.
            samples: of one micro-batch.
            longest: tokens that a sequence may have, as in `UpdatePlan`; None cuts nothing.
        """
        if len(samples.indices) == 0:
            return as_stand_in(self.make(seed, Samples(np.zeros(1, np.int64), self._any_sample()), longest))
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
        """Return micro-batches as `make_all` does, in fixed form; one without samples has rows of padding only."""
        filled = [samples for samples in micro_batches if len(samples.indices)]
        made = iter(self.make_all(seed, filled, longest))
        laid = []
        for samples, where in zip(micro_batches, places, strict=True):
            if len(samples.indices) == 0:
                laid.append(lay_in_rows(no_sequences(next_sentence=self._next_sentence), where, shape))
                continue
            by_corpus = np.concatenate([part.which for part in self.corpora.parts(samples.indices)])
            packed = next(made)
            laid.append(lay_in_rows(packed, where.take(by_corpus), shape))
            self._tell_surplus(packed.num_masked, laid[-1].num_masked)
        return laid

    def _tell_surplus(self, found: int, kept: int) -> None:
        """Say once that masks of shards do not fit; of whole words few are left out, by the way they are chosen."""
        if kept == found or self._told_surplus or not self.corpora.static:
            return
        self._told_surplus = True
        logger.warning(
            "--packing rows: %d of %d masked tokens of a micro-batch are left out: the shards were masked at a higher "
            "rate than rows have places for. Give theirs: --masked_token_fraction, --max_predictions_per_seq (of "
            "held-out shards: --eval_masked_token_fraction), or --packing tokens.",
            found - kept,
            found,
        )

    def _any_sample(self) -> np.ndarray:
        """Return a sample that can be read, int64 (1,)."""
        for source, start in zip(self.corpora.sources, self.corpora.starts, strict=True):
            firsts = np.cumsum(source.shard_sizes) - source.shard_sizes
            for shard in range(len(firsts)):
                if shard not in source.excluded:
                    return np.asarray([start + firsts[shard]], np.int64)
        raise AssertionError("Corpora.exclude leaves one")


def as_stand_in(batch: MicroBatch) -> MicroBatch:
    """Make a packed micro-batch count nowhere: it is computed by a rank that has none, so that none waits for it."""
    none = np.zeros(0, dtype=np.int64)
    pairs = None if batch.next_sentence_labels is None else np.full(batch.num_sequences, IGNORED_LABEL, dtype=np.int64)
    return batch._replace(
        masked_positions=none,
        labels=none,
        next_sentence_labels=pairs,
        is_sequence=np.zeros(batch.num_sequences, dtype=bool),
    )


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
