"""Masking: the published proportions, without replacement, and randomness that batching cannot change."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.masking import (
    Masked,
    MaskingConfig,
    MaskingPolicy,
    evaluation_policy,
    mask_tokens,
    policy_for,
    sample_keys,
)
from bert_pytorch.errors import ConfigError
from bert_pytorch.records import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary(
    (*SPECIAL_TOKENS, "[unused0]", "[unused17]", *(f"word{i}" for i in range(1993))), lowercase=True
)
MASK_ID = 4
FIRST_WORD = 7
POLICY = policy_for(MaskingConfig(), VOCABULARY)


def packed(lengths: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make sequences `[CLS] words [SEP]` of given lengths: ids, which are maskable, cu_seqlens."""
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.random.default_rng(seed).integers(FIRST_WORD, len(VOCABULARY.tokens), cu_seqlens[-1]).astype(np.int64)
    maskable = np.ones(len(ids), bool)
    maskable[cu_seqlens[:-1]] = maskable[cu_seqlens[1:] - 1] = False
    ids[cu_seqlens[:-1]], ids[cu_seqlens[1:] - 1] = 2, 3
    return ids, maskable, cu_seqlens


def sequence_of(masked: Masked, cu_seqlens: np.ndarray, index: int) -> tuple[list[int], list[int], list[int]]:
    """Take one sequence's ids, positions and labels out of a batch."""
    start, stop = cu_seqlens[index], cu_seqlens[index + 1]
    inside = (masked.positions >= start) & (masked.positions < stop)
    positions = masked.positions[inside] - start
    return masked.input_ids[start:stop].tolist(), positions.tolist(), masked.labels[inside].tolist()


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 200), min_size=1, max_size=12),
    fraction=st.floats(0.01, 1.0),
    most=st.integers(1, 60),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_sequence_gets_the_exact_count_without_replacement_and_no_special_token(
    lengths: list[int], fraction: float, most: int, seed: int
) -> None:
    ids, maskable, cu_seqlens = packed(lengths)
    before = ids.copy()
    policy = POLICY._replace(fraction=fraction, max_predictions=most)
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(seed, 0, np.arange(len(lengths))), policy)

    wanted = [min(most, max(1, round(fraction * (n - 2)))) if n > 2 else 0 for n in lengths]
    assert masked.counts.tolist() == wanted
    assert (np.diff(masked.positions) > 0).all()
    assert maskable[masked.positions].all()
    assert np.array_equal(ids, before)
    assert np.array_equal(masked.labels, before[masked.positions])
    untouched = np.ones(len(ids), bool)
    untouched[masked.positions] = False
    assert np.array_equal(masked.input_ids[untouched], before[untouched])
    owners = np.searchsorted(cu_seqlens, masked.positions, side="right") - 1
    assert np.bincount(owners, minlength=len(lengths)).tolist() == wanted


def test_masks_stay_those_of_this_version() -> None:
    ids, maskable, cu_seqlens = packed([128, 5, 77, 2, 512])
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(9, 2, np.arange(5)), POLICY)
    found = hashlib.sha256(masked.positions.tobytes() + masked.input_ids.tobytes()).hexdigest()
    assert found == "69f7b268aa74cb63110e7e743629104cffa89f77cc66dc6642405d766e587c5b"  # resumed runs rely on it


@pytest.mark.parametrize(("random", "kept"), [(0.1, 0.1), (0, 0), (0.5, 0.5), (1, 0), (0, 1), (0.25, 0.6)])
def test_masked_tokens_are_replaced_in_the_proportions_asked_for(random: float, kept: float) -> None:
    ids, maskable, cu_seqlens = packed([512] * 1000)
    policy = policy_for(MaskingConfig(random_token_prob=random, original_token_prob=kept), VOCABULARY)
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(7, 0, np.arange(1000)), policy)
    now = masked.input_ids[masked.positions]
    n = len(now)
    alike, as_mask = (now == masked.labels).sum(), (now == MASK_ID).sum()
    by_chance = random / len(policy.random_token_ids)  # the random token is the old one
    for found, share in (
        (as_mask, 1 - random - kept),
        (alike, kept + by_chance),
        (n - alike - as_mask, random - by_chance),
    ):
        assert abs(found - n * share) <= 4.5 * np.sqrt(n * share * (1 - share)) + 1e-6  # one in 150,000


def test_what_stands_in_a_masked_place_does_not_depend_on_the_place_or_its_neighbours() -> None:
    ids, maskable, cu_seqlens = packed([102] * 40000)
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(21, 0, np.arange(40000)), POLICY)
    now = masked.input_ids[masked.positions]
    fate = np.where(now == MASK_ID, 0, np.where(now == masked.labels, 1, 2))
    column = masked.positions % 102 - 1
    assert independent(column // 10, fate, 10, 3)
    assert independent(fate[:-1], fate[1:], 3, 3)
    randoms = fate == 2
    assert independent(column[randoms] // 10, (now[randoms] - FIRST_WORD) * 10 // 1993, 10, 10)
    assert not independent(column // 10, (fate == 1) | (column < 3), 10, 2)  # the test can tell


def independent(first: np.ndarray, second: np.ndarray, rows: int, columns: int) -> bool:
    """Whether a table of two variables has a usual chi-squared for independent ones."""
    table = np.bincount(first * columns + second, minlength=rows * columns).reshape(rows, columns)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    degrees = (rows - 1) * (columns - 1)
    return bool(((table - expected) ** 2 / expected).sum() < degrees + 5 * np.sqrt(2 * degrees))


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=8), count=st.integers(1, 70), whole=st.booleans())
def test_a_fixed_number_is_masked_in_every_sequence_that_has_so_many(
    lengths: list[int], count: int, whole: bool
) -> None:
    ids, maskable, cu_seqlens = packed(lengths)
    config = MaskingConfig(
        masked_tokens_per_seq=count, masked_token_fraction=0.9, max_predictions_per_seq=70, whole_word_masking=whole
    )
    policy = policy_for(config, VOCABULARY)  # of words of one token each
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(4, 0, np.arange(len(lengths))), policy)
    assert masked.counts.tolist() == [min(count, length - 2) for length in lengths]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"random_token_prob": 0.6, "original_token_prob": 0.5}, ["--random_token_prob 0.6", "--original_token_prob"]),
        ({"masked_tokens_per_seq": 81}, ["--masked_tokens_per_seq", "81", "--max_predictions_per_seq, which is 80"]),
    ],
)
def test_impossible_combinations_name_their_flags(values: dict[str, float], named: list[str]) -> None:
    with pytest.raises(ConfigError) as problem:
        MaskingConfig.model_validate(values).checked("the command line")
    assert all(words in str(problem.value) for words in named)


def test_a_fraction_and_a_number_given_together_are_no_error() -> None:
    MaskingConfig(masked_tokens_per_seq=20, masked_token_fraction=0.3).checked("the command line")  # shipped configs


def test_held_out_text_is_masked_alike_whatever_a_run_trains_with() -> None:
    def held_out(**training: object) -> Masked:
        config = DataConfig.model_validate(training)
        return mask_tokens(*packed([400] * 50), keys, evaluation_policy(config, VOCABULARY))

    keys = sample_keys(0, 0, np.arange(50))
    usual = held_out()
    other = held_out(
        masked_token_fraction=0.4,
        max_predictions_per_seq=5,
        masked_tokens_per_seq=3,
        whole_word_masking=True,
        random_token_prob=0.5,
        original_token_prob=0.5,
        seed=9,
    )
    assert all(np.array_equal(*pair) for pair in zip(usual, other, strict=True))
    assert set(usual.counts.tolist()) == {60}
    assert set(held_out(eval_masked_token_fraction=0.5).counts.tolist()) == {199}  # no cap of 80
    assert (usual.input_ids[usual.positions] == MASK_ID).mean() == pytest.approx(0.8, abs=0.03)


def test_masked_positions_are_uniform_over_the_sequence() -> None:
    ids, maskable, cu_seqlens = packed([102] * 20000)
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(3, 1, np.arange(20000)), POLICY)
    counts = np.bincount(masked.positions % 102, minlength=102)[1:-1]
    expected = 20000 * 15 / 100
    chi_squared = ((counts - expected) ** 2 / (expected * (1 - 0.15))).sum()
    assert chi_squared < 99 + 5 * np.sqrt(2 * 99)


def test_random_replacements_cover_all_words_and_no_special_or_unused_token() -> None:
    ids, maskable, cu_seqlens = packed([512] * 3000)
    policy = POLICY._replace(random_probability=0.9)
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(5, 0, np.arange(3000)), policy)
    now = masked.input_ids[masked.positions]
    drawn = np.bincount(now[now != masked.labels], minlength=len(VOCABULARY.tokens))
    assert drawn[:FIRST_WORD].sum() == 0
    assert (drawn[FIRST_WORD:] > 0).all()  # the last id of the vocabulary too


def test_unknown_words_are_maskable_replacements_never_unknown() -> None:
    assert 1 not in POLICY.random_token_ids
    ids, maskable, cu_seqlens = packed([20])
    ids[1:-1] = 1
    assert mask_tokens(ids, maskable, cu_seqlens, sample_keys(0, 0, np.arange(1)), POLICY).labels.tolist() == [1, 1, 1]


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 90), min_size=2, max_size=10),
    seed=st.integers(0, 2**32),
    data=st.data(),
)
def test_a_sample_is_masked_alike_however_it_is_batched(lengths: list[int], seed: int, data: st.DataObject) -> None:
    ids, maskable, cu_seqlens = packed(lengths)
    keys = sample_keys(seed, 3, np.arange(len(lengths)))
    whole = mask_tokens(ids, maskable, cu_seqlens, keys, POLICY)
    chosen = data.draw(st.permutations(range(len(lengths))))[: data.draw(st.integers(1, len(lengths)))]
    places = np.concatenate([np.arange(cu_seqlens[i], cu_seqlens[i + 1]) for i in chosen])
    part_seqlens = np.concatenate([[0], np.cumsum([lengths[i] for i in chosen])])
    part = mask_tokens(ids[places], maskable[places], part_seqlens, keys[chosen], POLICY)
    for place, index in enumerate(chosen):
        assert sequence_of(part, part_seqlens, place) == sequence_of(whole, cu_seqlens, index)


def test_seed_epoch_and_sample_all_change_the_masks() -> None:
    ids, maskable, cu_seqlens = packed([512])
    drawn = {
        tuple(mask_tokens(ids, maskable, cu_seqlens, sample_keys(*key, np.array([index])), POLICY).positions.tolist())
        for key in ((0, 0), (0, 1), (1, 0), (-1, 0))
        for index in (0, 1, 2**40)
    }
    assert len(drawn) == 12


def test_an_epoch_for_each_sample_is_the_epoch_of_that_sample() -> None:
    epochs, indices = np.array([3, 0, 3, -1]), np.array([5, 5, 6, 2**40])
    each = [int(sample_keys(9, int(e), np.array([i]))[0]) for e, i in zip(epochs, indices, strict=True)]
    assert sample_keys(9, epochs, indices).tolist() == each
    assert len(set(each)) == 4


def test_keys_of_many_samples_do_not_collide() -> None:
    keys = np.concatenate([sample_keys(seed, epoch, np.arange(5000)) for seed in range(4) for epoch in range(10)])
    assert len(np.unique(keys)) == len(keys)


def test_more_sequences_than_fit_one_sort_are_masked_alike() -> None:
    ids, maskable, cu_seqlens = packed([5] * 70000)
    keys = sample_keys(1, 1, np.arange(70000))
    masked = mask_tokens(ids, maskable, cu_seqlens, keys, POLICY)
    assert masked.counts.tolist() == [1] * 70000
    tail = mask_tokens(ids[-5:], maskable[-5:], np.array([0, 5]), keys[-1:], POLICY)
    assert sequence_of(masked, cu_seqlens, 69999) == sequence_of(tail, np.array([0, 5]), 0)


def test_a_sequence_too_long_to_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="70000"):
        mask_tokens(
            np.zeros(70000, np.int64),
            np.ones(70000, bool),
            np.array([0, 70000]),
            sample_keys(0, 0, np.arange(1)),
            POLICY,
        )


def test_nothing_to_mask_is_no_failure() -> None:
    empty: MaskingPolicy = POLICY
    masked = mask_tokens(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(1, np.int64), np.zeros(0, np.uint64), empty)
    assert (len(masked.input_ids), len(masked.positions), len(masked.counts)) == (0, 0, 0)
