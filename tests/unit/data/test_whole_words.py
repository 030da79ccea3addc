"""Whole-word masking: equal to a slow reading of its definition, and what a word is in either kind of vocabulary."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.data.masking import MaskingConfig, mask_tokens, policy_for, sample_keys
from bert_pytorch.data.whole_words import choose_words
from bert_pytorch.records import BYTE_BPE_SPECIALS, SPECIAL_TOKENS, Vocabulary
from bert_pytorch.vocabulary import continues_word

WORDS, PIECES = 40, 40
VOCABULARY = Vocabulary(
    (*SPECIAL_TOKENS, *(f"w{i}" for i in range(WORDS)), *(f"##p{i}" for i in range(PIECES))), lowercase=True
)
POLICY = policy_for(MaskingConfig(whole_word_masking=True), VOCABULARY)


def words_by_reading(maskable: list[bool], continues: list[bool]) -> list[list[int]]:
    words: list[list[int]] = []
    for place, (may, joins) in enumerate(zip(maskable, continues, strict=True)):
        if may and joins and place and maskable[place - 1]:
            words[-1].append(place)
        elif may:
            words.append([place])
    return words


def chosen_by_reading(words: list[list[int]], hashes: list[int], wanted: int, most: int) -> list[int]:
    """One sequence, word by word; hashes are of columns, of which the upper 32 bits count."""
    order = sorted(words, key=lambda word: (hashes[word[0]] >> 32, word[0]))
    chosen: list[int] = []
    for word in order:
        if len(chosen) + len(word) <= wanted:
            chosen += word
    if not chosen and order:
        short = [word for word in order if len(word) <= most]
        chosen = short[0] if short else order[0][:most]
    return sorted(chosen)


sequences_drawn = st.lists(
    st.lists(st.tuples(st.sampled_from([True, True, True, False]), st.booleans(), st.integers(0, 6)), max_size=40),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(drawn=sequences_drawn, fraction=st.floats(0.01, 1), most=st.integers(1, 12))
def test_choice_equals_a_slow_reading_word_by_word(drawn, fraction: float, most: int) -> None:
    lengths = [len(sequence) for sequence in drawn]
    flat = [token for sequence in drawn for token in sequence]
    maskable, continues = (np.array([token[index] for token in flat], bool) for index in (0, 1))
    # Few different hashes, so that ties are met; the lower bits must not count.
    hashes = np.array([(token[2] << 32) + 7 * place for place, token in enumerate(flat)], np.uint64)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(len(drawn)), lengths)
    columns = np.arange(len(flat)) - cu_seqlens[owner]
    edges = list(pairwise(cu_seqlens))
    available = np.array([maskable[a:b].sum() for a, b in edges])
    wanted = np.minimum(np.clip(np.rint(fraction * available).astype(np.int64), 1, most), available)
    found = choose_words(maskable, continues, owner, columns, hashes, wanted, most).tolist()
    expected = []
    for (a, b), goal in zip(edges, wanted.tolist(), strict=True):
        words = words_by_reading(maskable[a:b].tolist(), continues[a:b].tolist())
        expected += [a + place for place in chosen_by_reading(words, hashes[a:b].tolist(), goal, most)]
    assert found == expected


def packed(rng: np.random.Generator, lengths: list[int], share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make `[CLS] … [SEP]` sequences in which `share` of the tokens continue a word."""
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    first = len(SPECIAL_TOKENS)
    joins = rng.random(cu_seqlens[-1]) < share
    ids = np.where(joins, first + WORDS, first) + rng.integers(0, WORDS, cu_seqlens[-1])
    maskable = np.ones(len(ids), bool)
    ends = np.concatenate([cu_seqlens[:-1], cu_seqlens[1:] - 1])
    maskable[ends] = False
    ids[cu_seqlens[:-1]], ids[cu_seqlens[1:] - 1] = 2, 3
    return ids.astype(np.int32), maskable, cu_seqlens


def test_only_whole_words_are_masked_in_the_numbers_asked_for_and_each_alike() -> None:
    ids, maskable, cu_seqlens = packed(np.random.default_rng(0), [130] * 4000, 0.25)
    masked = mask_tokens(ids, maskable, cu_seqlens, sample_keys(1, 0, np.arange(4000)), POLICY)
    chosen = np.zeros(len(ids), bool)
    chosen[masked.positions] = True
    continues = continues_word(VOCABULARY)[ids] & maskable & np.roll(maskable, 1)
    assert (chosen[1:] == chosen[:-1])[continues[1:]].all()
    assert masked.counts.max() <= 19  # round(0.15 × 128)
    assert masked.counts.mean() > 18.95
    columns = np.bincount(masked.positions % 130, minlength=130)[1:-1]
    assert abs(columns / 4000 - 19 / 128).max() < 5 * np.sqrt(0.15 * 0.85 / 4000)
    # 80/10/10 is each token's own, also inside a word.
    now, before = masked.input_ids[masked.positions], masked.labels
    assert abs((now == 4).mean() - 0.8) < 0.01
    assert abs((now == before).mean() - 0.1) < 0.01


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(2, 90), min_size=2, max_size=10), seed=st.integers(0, 2**32), data=st.data())
def test_a_sample_is_masked_alike_however_it_is_batched(lengths: list[int], seed: int, data: st.DataObject) -> None:
    ids, maskable, cu_seqlens = packed(np.random.default_rng(seed), lengths, 0.6)
    keys = sample_keys(seed, 3, np.arange(len(lengths)))
    whole = mask_tokens(ids, maskable, cu_seqlens, keys, POLICY)
    assert (whole.counts[np.array(lengths) > 2] > 0).all()
    index = data.draw(st.integers(0, len(lengths) - 1))
    start, stop = cu_seqlens[index], cu_seqlens[index + 1]
    alone = mask_tokens(
        ids[start:stop], maskable[start:stop], np.array([0, stop - start]), keys[index : index + 1], POLICY
    )
    inside = (whole.positions >= start) & (whole.positions < stop)
    assert (whole.positions[inside] - start).tolist() == alone.positions.tolist()
    assert whole.input_ids[start:stop].tolist() == alone.input_ids.tolist()


def test_what_continues_a_word_in_either_kind() -> None:
    pieces = Vocabulary((*SPECIAL_TOKENS, "play", "##ing", "#", "##"), True)
    assert continues_word(pieces).tolist() == [False] * 6 + [True, False, True]
    tokens = ("<s>", "<pad>", "</s>", "<unk>", "the", "Ġthe", ",", "Ġ", "<mask>")
    spaced = Vocabulary(tokens, False, merges=())
    assert [token for token, joins in zip(tokens, continues_word(spaced), strict=True) if joins] == ["the", ","]


def test_replacements_of_byte_bpe_are_neither_special_nor_fillers() -> None:
    tokens = ("<s>", "<pad>", "</s>", "<unk>", "a", "[MASK]", "madeupword0001", "<mask>")
    policy = policy_for(MaskingConfig(), Vocabulary(tokens, False, merges=()))
    assert policy.mask_token_id == 7
    assert policy.random_token_ids.tolist() == [4, 5]
    assert policy.continues_word is None
    assert set(BYTE_BPE_SPECIALS) < set(tokens)
