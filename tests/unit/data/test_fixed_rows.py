"""Rows of fixed length: nothing lost, nothing moved within a sequence, one shape."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, deal_rows, lay_in_rows, most_masked, no_sequences
from bert_pytorch.data.masking import MaskingConfig, MaskingPolicy, masked_counts, policy_for, sample_keys
from bert_pytorch.data.packing import masked_batch
from bert_pytorch.data.row_packing import pack_lengths
from bert_pytorch.records import IGNORED_LABEL
from tests.support.sequence_rows import WORDS, make_rows
from tests.support.sequences import all_sequences, sequences_of

SPECIAL = np.isin(np.arange(len(WORDS.tokens)), WORDS.structural_ids)
POLICIES = st.builds(
    lambda fraction, most, fixed: policy_for(
        MaskingConfig(masked_token_fraction=fraction, max_predictions_per_seq=most), WORDS
    )._replace(tokens_per_sequence=fixed),
    st.sampled_from([0.15, 0.3, 0.8, 1.0]),
    st.integers(1, 20),
    st.sampled_from([None, None, 1, 3]),
)


def ways_to_fill(length: int, slots: int) -> list[tuple[int, ...]]:
    """List all sequences, by length, that fit into a row."""
    lists = [
        lengths
        for k in range(slots + 1)
        for lengths in itertools.combinations_with_replacement(range(1, length + 1), k)
    ]
    return [lengths for lengths in lists if sum(lengths) <= length]


@settings(max_examples=30)
@given(st.integers(3, 18), st.integers(1, 3), POLICIES, st.booleans())
def test_places_for_masked_tokens_are_the_maximum_over_all_ways_to_fill_a_row(
    length: int, slots: int, policy: MaskingPolicy, static: bool
) -> None:
    special = 0 if static else 2
    wanted = max(
        int(masked_counts(np.maximum(np.array(lengths, np.int64) - special, 0), policy).sum())
        for lengths in ways_to_fill(length, slots)
    )
    assert most_masked(length, slots, policy, static=static) == wanted


def test_places_for_masked_tokens_are_few_more_than_the_fraction() -> None:
    policy = policy_for(MaskingConfig(), WORDS)
    assert 0.15 * 512 <= most_masked(512, 8, policy, static=False) <= 0.15 * 512 + 8
    assert 0.15 * 128 <= most_masked(128, 8, policy, static=False) <= 0.15 * 128 + 8


@given(st.lists(st.integers(5, 64), min_size=1, max_size=200), st.integers(1, 9), st.integers(1, 7), st.integers(1, 5))
def test_rows_are_dealt_whole_and_alike_to_all_ranks(lengths: list[int], slots: int, rows: int, world: int) -> None:
    array = np.array(lengths, np.int32)
    plan = pack_lengths(array, 64, slots)
    shares = [deal_rows(plan, (rows,) * world, rank) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert len(shares[0]) == -(-plan.num_rows // (rows * world))
    assert sorted(sample for share in shares for chosen, _ in share for sample in chosen.tolist()) == list(
        range(len(lengths))
    )
    for chosen, places in itertools.chain.from_iterable(shares):
        if len(chosen):
            assert places.rows.max() < rows
            assert places.slots.max() < slots
        assert len(set(zip(places.rows.tolist(), places.slots.tolist(), strict=True))) == len(chosen)
        assert (np.bincount(places.rows, array[chosen], minlength=rows) <= 64).all()
        assert len(set(zip(plan.rows[chosen].tolist(), places.rows.tolist(), strict=True))) == len(
            set(plan.rows[chosen])
        )


@given(st.integers(0, 30), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 99))
def test_sequences_come_through_unchanged_wherever_they_lie(
    count: int, slots: int, pairs: bool, static: bool, seed: int
) -> None:
    policy = policy_for(MaskingConfig(masked_token_fraction=0.3), WORDS)
    if count:
        rows = make_rows(count, 16, pairs, slots=4 if static else 0)
        packed = masked_batch(
            rows, sample_keys(1, 0, np.arange(count)), None if static else policy, SPECIAL, next_sentence=pairs
        )
        lengths = rows.lengths
    else:
        packed, lengths = no_sequences(next_sentence=pairs), np.zeros(0, np.int32)
    plan = pack_lengths(lengths, 16, slots)
    order = np.random.default_rng(seed).permutation(plan.num_rows + 2)  # two rows stay empty
    places = RowPlaces(order[plan.rows], plan.slots)
    most = 4 * slots if static else most_masked(16, slots, policy, static=False)
    shape = RowShape(plan.num_rows + 2, 16, slots, most, 7)
    laid = lay_in_rows(packed, places, shape)

    assert all_sequences([laid]) == all_sequences([packed])
    for name in ("num_tokens", "num_sequences", "num_masked", "num_pairs"):
        assert getattr(laid, name) == getattr(packed, name), name
    assert laid.row_length == 16
    assert laid.cu_seqlens[:: slots + 1].tolist() == list(range(0, 16 * (plan.num_rows + 3), 16))
    assert (np.diff(laid.cu_seqlens) >= 0).all()
    real = np.repeat(laid.is_sequence, np.diff(laid.cu_seqlens))
    assert (laid.input_ids[~real] == 7).all()
    assert (laid.labels[laid.num_masked :] == IGNORED_LABEL).all()
    assert (np.diff(laid.masked_positions[: laid.num_masked]) > 0).all()
    assert len(laid.labels) == len(laid.masked_positions) == shape.masked
    for name in packed._fields[:7]:
        one, other = getattr(packed, name), getattr(laid, name)
        assert one is other or one.dtype == other.dtype, name
    if pairs:
        assert (laid.next_sentence_labels[~laid.is_sequence] == IGNORED_LABEL).all()
    places_of = {sequence: [] for sequence in sequences_of(packed)}
    starts = laid.cu_seqlens[:-1][laid.is_sequence]
    for sequence, start in zip(sequences_of(laid), starts.tolist(), strict=True):
        places_of[sequence].append(start // 16)
    for index, sequence in enumerate(sequences_of(packed)):
        assert places.rows[index] in places_of[sequence]


def masks_kept_by_reading(runs: list[list[int]], places: int) -> list[int]:
    """One row: its runs of neighbours, in order, until one does not fit; if that is the first, its beginning."""
    kept: list[int] = []
    for run in runs:
        if len(kept) + len(run) > places:
            return kept or run[:places]
        kept += run
    return kept


@settings(max_examples=200)
@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 12), st.floats(0.05, 1), st.integers(0, 999))
def test_masked_tokens_beyond_a_rows_places_become_what_they_were(
    count: int, slots: int, places: int, share: float, seed: int
) -> None:
    rows, rng = make_rows(count, 16, pairs=False, seed=seed), np.random.default_rng(seed)
    packed = masked_batch(rows, sample_keys(1, 0, np.arange(count)), policy_for(MaskingConfig(), WORDS), SPECIAL,
                          next_sentence=False)  # fmt: skip
    originals = packed.input_ids.copy()
    originals[packed.masked_positions] = packed.labels
    masked = np.flatnonzero((rng.random(len(originals)) < share) & ~SPECIAL[originals])
    packed = packed._replace(
        input_ids=np.where(np.isin(np.arange(len(originals)), masked), 4, originals).astype(np.int32),
        masked_positions=masked,
        labels=originals[masked].astype(np.int64),
    )
    plan = pack_lengths(rows.lengths, 16, slots)
    shape = RowShape(plan.num_rows + 1, 16, slots, places, 0)
    laid = lay_in_rows(packed, RowPlaces(plan.rows, plan.slots), shape)

    given_by_row: dict[int, list[list[int]]] = {row: [] for row in range(shape.rows)}
    ends = [0] * shape.rows
    for sequence in np.lexsort((plan.slots, plan.rows)).tolist():
        row, start, stop = int(plan.rows[sequence]), *packed.cu_seqlens[sequence : sequence + 2].tolist()
        moved = row * 16 + ends[row] - start
        for place in (masked[(masked >= start) & (masked < stop)] + moved).tolist():
            runs = given_by_row[row]
            if runs and runs[-1][-1] == place - 1:
                runs[-1].append(place)
            else:
                runs.append([place])
        ends[row] += stop - start
    wanted = [place for row in given_by_row for place in masks_kept_by_reading(given_by_row[row], places)]
    assert laid.masked_positions[: laid.num_masked].tolist() == wanted
    assert len(laid.masked_positions) == len(laid.labels) == shape.masked == shape.rows * places
    assert sorted(s.originals for s in all_sequences([laid])) == sorted(s.originals for s in all_sequences([packed]))
    surplus = {place for runs in given_by_row.values() for run in runs for place in run} - set(wanted)
    assert 4 not in laid.input_ids[sorted(surplus)]
    assert places < 16 or not surplus
