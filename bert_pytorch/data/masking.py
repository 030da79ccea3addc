"""Token masking for the masked-LM objective (Devlin et al. 2019, §3.1), without replacement.

One policy for both kinds: `corpus` calls it once when it writes shards (static masking), the loader each time a
sequence is drawn (dynamic masking, Liu et al. 2019, §4.1).  Randomness is a hash of (seed, epoch, sample index,
position): how sequences are batched, ordered or spread over workers changes nothing.

T tokens together, B sequences, M masked tokens.
"""

import re
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.data.whole_words import choose_words
from bert_pytorch.records import Vocabulary
from bert_pytorch.vocabulary import continues_word

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_POSITION_BITS = 16
MAX_SEQUENCE_LENGTH = 1 << _POSITION_BITS
_SEQUENCES_AT_ONCE = 1 << 16
_UNUSED = r"\[unused\d+\]|madeupword\d+"
"""Tokens that fill up published vocabularies, BERT's and RoBERTa's, and stand in no text."""


class MaskingConfig(Settings):
    """How many tokens of a sequence are masked."""

    masked_token_fraction: float = Field(0.15, gt=0, le=1)
    """Share of a sequence's maskable tokens that is masked (BERT: 0.15)."""
    max_predictions_per_seq: int = Field(80, gt=0)
    """Most masked tokens of one sequence. 80 is enough for 512 tokens, 20 for 128 (NVIDIA's settings)."""
    whole_word_masking: bool = False
    """Mask all tokens of a word or none (google-research/bert's second release of BERT-large)."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "masked_lm_prob": "--masked_token_fraction",
        "masked_lm_probability": "--masked_token_fraction",
        "mlm_probability": "--masked_token_fraction",
        "max_pred_per_seq": "--max_predictions_per_seq",
        "max_predictions": "--max_predictions_per_seq",
        "do_whole_word_mask": "--whole_word_masking",
    }


class MaskingPolicy(NamedTuple):
    """Everything `mask_tokens` needs to know besides the tokens."""

    fraction: float
    """Share of maskable tokens that is masked."""
    max_predictions: int
    """Most masked tokens of one sequence."""
    mask_token_id: int
    """Id of [MASK]."""
    random_token_ids: np.ndarray
    """int32, the ids a masked token may be replaced by: neither special nor fillers such as `[unusedN]`."""
    random_probability: float = 0.1
    """Share of masked tokens replaced by a random one."""
    keep_probability: float = 0.1
    """Share of masked tokens left as they are; the rest becomes [MASK]."""
    continues_word: np.ndarray | None = None
    """bool (V,), which tokens go on with the word before them, for whole words; None masks tokens one by one."""


class Masked(NamedTuple):
    """Tokens after masking."""

    input_ids: np.ndarray
    """(T,), the dtype of the input, corrupted; a new array."""
    positions: np.ndarray
    """int64 (M,), indices into T, strictly increasing."""
    labels: np.ndarray
    """int64 (M,), the original tokens at `positions`."""
    counts: np.ndarray
    """int32 (B,), masked tokens of each sequence."""


def policy_for(config: MaskingConfig, vocabulary: Vocabulary) -> MaskingPolicy:
    """Make the policy that a configuration asks for with a vocabulary."""
    usable = [
        index
        for index, token in enumerate(vocabulary.tokens)
        if token not in vocabulary.special and not re.fullmatch(_UNUSED, token)
    ]
    return MaskingPolicy(
        fraction=config.masked_token_fraction,
        max_predictions=config.max_predictions_per_seq,
        mask_token_id=vocabulary.mask_id,
        random_token_ids=np.asarray(usable or [vocabulary.mask_id], np.int32),
        continues_word=continues_word(vocabulary) if config.whole_word_masking else None,
    )


def sample_keys(seed: int, epochs: int | np.ndarray, sample_indices: np.ndarray) -> np.ndarray:
    """Derive each sample's key.

    Args:
        seed: any integer.
        epochs: int64 (B,), the pass over the data that each sample is drawn in, or one for all.
        sample_indices: int64 (B,), indices over the whole set.

    Returns:
        uint64 (B,).
    """
    key = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    key = _mix(key + np.atleast_1d(np.asarray(epochs, np.int64)).astype(np.uint64) * _GOLDEN)
    return _mix(key + np.asarray(sample_indices).astype(np.uint64) * _GOLDEN)


def mask_tokens(
    input_ids: np.ndarray, maskable: np.ndarray, cu_seqlens: np.ndarray, keys: np.ndarray, policy: MaskingPolicy
) -> Masked:
    """Mask min(max_predictions, max(1, round(fraction × maskable))) tokens of each sequence, 80/10/10.

    A sequence without maskable tokens keeps all of them. Whole words may come to less than that: `choose_words`.

    Args:
        input_ids: integers (T,), not modified.
        maskable: bool (T,), False at special tokens ([UNK] is a word like any other).
        cu_seqlens: integers (B + 1,), where each sequence starts; the last entry is T.
        keys: uint64 (B,), from `sample_keys`.
        policy: how many, and by what they are replaced.

    Raises:
        ValueError: if a sequence is longer than 65,536 tokens.
    """
    cu_seqlens = np.asarray(cu_seqlens, np.int64)
    if len(keys) and np.diff(cu_seqlens).max() > MAX_SEQUENCE_LENGTH:
        raise ValueError(
            f"a sequence of {np.diff(cu_seqlens).max()} tokens, at most {MAX_SEQUENCE_LENGTH} can be masked"
        )
    chosen, hashes, counts = [], [], []
    for first in range(0, len(keys), _SEQUENCES_AT_ONCE):
        last = min(first + _SEQUENCES_AT_ONCE, len(keys))
        start, stop = cu_seqlens[first], cu_seqlens[last]
        continues = None if policy.continues_word is None else policy.continues_word[input_ids[start:stop]]
        picked = _choose(
            maskable[start:stop], continues, cu_seqlens[first : last + 1] - start, keys[first:last], policy
        )
        chosen.append(picked[0] + start)
        hashes.append(picked[1])
        counts.append(picked[2])
    positions = np.concatenate([np.empty(0, np.int64), *chosen])
    labels = input_ids[positions].astype(np.int64)
    corrupted = input_ids.copy()
    corrupted[positions] = _replacements(labels, np.concatenate([np.empty(0, np.uint64), *hashes]), policy)
    return Masked(corrupted, positions, labels, np.concatenate([np.empty(0, np.int32), *counts]))


def _choose(
    maskable: np.ndarray, continues: np.ndarray | None, cu_seqlens: np.ndarray, keys: np.ndarray, policy: MaskingPolicy
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pick the maskable tokens or words with the smallest hashes: positions int64 (M,), hashes, counts int32 (B,)."""
    sequences = np.repeat(np.arange(len(keys)), np.diff(cu_seqlens))
    columns = np.arange(len(maskable)) - cu_seqlens[sequences]
    hashes = _mix(keys[sequences] + columns.astype(np.uint64) * _GOLDEN)
    available = _sum_by_sequence(maskable, cu_seqlens)
    wanted = np.clip(np.rint(policy.fraction * available).astype(np.int64), 1, policy.max_predictions)
    wanted = np.minimum(wanted, available)
    if continues is not None:
        position = choose_words(maskable, continues, sequences, columns, hashes, wanted, policy.max_predictions)
        return position, hashes[position], np.bincount(sequences[position], minlength=len(keys)).astype(np.int32)

    # Sorting is the cost, and few tokens can win: keep those with small hashes, or all where that is too few.
    limit = np.uint64(min(1.0, 1.25 * policy.fraction + 0.05) * 0xFFFFFFFF)
    candidates = maskable & (hashes >> np.uint64(32) <= limit)
    short = _sum_by_sequence(candidates, cu_seqlens) < wanted
    if short.any():
        candidates |= maskable & short[sequences]
    where = np.flatnonzero(candidates)

    # One integer a candidate, sequence | 32 bits of its hash | column: SIMD sorts values, and ties fall to the column.
    order = sequences[where].astype(np.uint64) << np.uint64(48)
    order |= (hashes[where] >> np.uint64(32)) << np.uint64(_POSITION_BITS)
    order |= columns[where].astype(np.uint64)
    order.sort()
    owner = (order >> np.uint64(48)).astype(np.int64)
    starts = np.searchsorted(owner, np.arange(len(keys)))
    winners = order[np.arange(len(order)) - starts[owner] < wanted[owner]]
    position = (winners & np.uint64(MAX_SEQUENCE_LENGTH - 1)).astype(np.int64)
    position += cu_seqlens[(winners >> np.uint64(48)).astype(np.int64)]
    position.sort()
    return position, hashes[position], wanted.astype(np.int32)


def _replacements(labels: np.ndarray, hashes: np.ndarray, policy: MaskingPolicy) -> np.ndarray:
    """Draw what stands at each masked position, int64 (M,)."""
    fate = _mix(hashes ^ _GOLDEN)
    draw = (fate >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
    choices = len(policy.random_token_ids)
    index = (_mix(fate) >> np.uint64(32)) * np.uint64(choices) >> np.uint64(32)
    random_ids = policy.random_token_ids[index.astype(np.int64)]
    kept = policy.keep_probability
    replaced = np.where(draw < kept + policy.random_probability, random_ids, policy.mask_token_id)
    return np.where(draw < kept, labels, replaced)


def _sum_by_sequence(flags: np.ndarray, cu_seqlens: np.ndarray) -> np.ndarray:
    running = np.concatenate([[0], np.cumsum(flags)])
    return running[cu_seqlens[1:]] - running[cu_seqlens[:-1]]


def _mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's output function (Steele, Lea, Flood 2014): a bijection of uint64 that hides structure."""
    value = value + _GOLDEN
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value
