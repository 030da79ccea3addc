"""Token masking for the masked-LM objective (Devlin et al. 2019, §3.1), without replacement.

One policy for both kinds: `corpus` calls it once when it writes shards (static masking), the loader each time a
sequence is drawn (dynamic masking, Liu et al. 2019, §4.1).  Randomness is a hash of (seed, epoch, sample index) and a
number: how sequences are batched, ordered or spread over workers changes nothing.

T tokens together, B sequences, M masked tokens.
"""

import re
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.data.keyed_random import GOLDEN, choose_subsets, mix, scaled, streams
from bert_pytorch.data.whole_words import choose_words
from bert_pytorch.records import Vocabulary
from bert_pytorch.vocabulary import continues_word

MAX_SEQUENCE_LENGTH = 1 << 16
_TOKENS_AT_ONCE = 1 << 17
"""Tokens masked at a time: what is made on the way stays in the processor's cache."""
_MOST_SEQUENCES_AT_ONCE = 1 << 16
_UNUSED = r"\[unused\d+\]|madeupword\d+"
"""Tokens that fill up published vocabularies, BERT's and RoBERTa's, and stand in no text."""


class MaskingConfig(Settings):
    """How many tokens of a sequence are masked, and by what they are replaced."""

    masked_token_fraction: float = Field(0.15, gt=0, le=1)
    """Share of a sequence's maskable tokens that is masked (BERT: 0.15)."""
    masked_tokens_per_seq: int | None = Field(None, gt=0)
    """Masked tokens of every sequence that has so many, whatever its length; where it is given,
    --masked_token_fraction is not used."""
    max_predictions_per_seq: int = Field(80, gt=0)
    """Most masked tokens of one sequence. 80 is enough for 512 tokens, 20 for 128 (NVIDIA's settings)."""
    random_token_prob: float = Field(0.1, ge=0, le=1)
    """Share of the masked tokens that a random token stands in for (BERT: 0.1)."""
    original_token_prob: float = Field(0.1, ge=0, le=1)
    """Share of the masked tokens that stay as they are and are predicted all the same (BERT: 0.1); those that are
    neither become [MASK]."""
    whole_word_masking: bool = False
    """Mask all tokens of a word or none (google-research/bert's second release of BERT-large)."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "masked_lm_prob": "--masked_token_fraction",
        "masked_lm_probability": "--masked_token_fraction",
        "mlm_probability": "--masked_token_fraction",
        "max_pred_per_seq": "--max_predictions_per_seq",
        "max_predictions": "--max_predictions_per_seq",
        "do_whole_word_mask": "--whole_word_masking",
        "mask_replace_prob": "--random_token_prob and --original_token_prob; the rest of the masked becomes [MASK]",
        "random_replace_prob": "--random_token_prob",
        "leave_unmasked_prob": "--original_token_prob",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.random_token_prob + self.original_token_prob > 1:
            yield (
                f"--random_token_prob {self.random_token_prob} and --original_token_prob {self.original_token_prob} "
                "come to more than 1. Lower one of them: what is left becomes [MASK]."
            )
        if (self.masked_tokens_per_seq or 0) > self.max_predictions_per_seq:
            yield (
                f"--masked_tokens_per_seq: found {self.masked_tokens_per_seq}, wanted at most "
                f"--max_predictions_per_seq, which is {self.max_predictions_per_seq}. Raise that as well."
            )


class EvaluationMaskingConfig(Settings):
    """How held-out text is masked: apart from training, so that losses of different runs compare."""

    eval_masked_token_fraction: float = Field(0.15, gt=0, le=1)
    """Share of the maskable tokens of each held-out sequence that is masked, token by token and 80/10/10 whatever the
    training does; losses of runs compare where it is the same."""


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
    tokens_per_sequence: int | None = None
    """Masked tokens of a sequence that has so many, instead of `fraction`."""


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
    return MaskingPolicy(
        fraction=config.masked_token_fraction,
        max_predictions=config.max_predictions_per_seq,
        mask_token_id=vocabulary.mask_id,
        random_token_ids=_replacements(vocabulary),
        random_probability=config.random_token_prob,
        keep_probability=config.original_token_prob,
        continues_word=continues_word(vocabulary) if config.whole_word_masking else None,
        tokens_per_sequence=config.masked_tokens_per_seq,
    )


def evaluation_policy(config: EvaluationMaskingConfig, vocabulary: Vocabulary) -> MaskingPolicy:
    """Make the policy of held-out text: BERT's, token by token, 80/10/10, the fraction being the only limit."""
    return MaskingPolicy(
        fraction=config.eval_masked_token_fraction,
        max_predictions=MAX_SEQUENCE_LENGTH,
        mask_token_id=vocabulary.mask_id,
        random_token_ids=_replacements(vocabulary),
    )


def _replacements(vocabulary: Vocabulary) -> np.ndarray:
    special, unused = vocabulary.special, re.compile(_UNUSED).fullmatch
    usable = [index for index, token in enumerate(vocabulary.tokens) if token not in special and not unused(token)]
    return np.asarray(usable or [vocabulary.mask_id], np.int32)


def sample_keys(seed: int, epochs: int | np.ndarray, sample_indices: np.ndarray) -> np.ndarray:
    """Derive each sample's key.

    Args:
        seed: any integer.
        epochs: int64 (B,), the pass over the data that each sample is drawn in, or one for all.
        sample_indices: int64 (B,), indices over the whole set.

    Returns:
        uint64 (B,).
    """
    key = mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    key = mix(key + np.atleast_1d(np.asarray(epochs, np.int64)).astype(np.uint64) * GOLDEN)
    return mix(key + np.asarray(sample_indices).astype(np.uint64) * GOLDEN)


def mask_tokens(
    input_ids: np.ndarray, maskable: np.ndarray, cu_seqlens: np.ndarray, keys: np.ndarray, policy: MaskingPolicy
) -> Masked:
    """Mask min(max_predictions, max(1, round(fraction × maskable))) tokens of each sequence, or a fixed number.

    A sequence without maskable tokens keeps all of them, one with fewer than the fixed number loses them all. Whole
    words may come to less than that: `choose_words`.

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
    choose = _choose_tokens if policy.continues_word is None else _choose_whole_words
    at_once = min(max(1, _TOKENS_AT_ONCE * len(keys) // max(1, len(input_ids))), _MOST_SEQUENCES_AT_ONCE)
    corrupted = input_ids.copy()
    positions, labels, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for first in range(0, len(keys), at_once):
        edges = cu_seqlens[first : first + at_once + 1]
        part, start = input_ids[edges[0] : edges[-1]], edges[0]
        may = maskable[edges[0] : edges[-1]]
        where, hashes, count = choose(part, may, edges - start, keys[first : first + at_once], policy)
        label = part.take(where).astype(np.int64)
        corrupted[start : edges[-1]][where] = _draw_replacements(label, hashes, policy)
        positions.append(where + start)
        labels.append(label)
        counts.append(count.astype(np.int32))
    return Masked(corrupted, np.concatenate(positions), np.concatenate(labels), np.concatenate(counts))


def _choose_tokens(
    input_ids: np.ndarray, maskable: np.ndarray, cu_seqlens: np.ndarray, keys: np.ndarray, policy: MaskingPolicy
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose tokens one by one: positions int64 (M,), increasing, a hash uint64 (M,) for each, counts int64 (B,)."""
    places = np.flatnonzero(maskable)
    available = np.diff(np.searchsorted(places, cu_seqlens))
    wanted = masked_counts(available, policy)
    hashes = streams(keys, wanted)
    return places.take(choose_subsets(available, wanted, hashes)), hashes, wanted


def _choose_whole_words(
    input_ids: np.ndarray, maskable: np.ndarray, cu_seqlens: np.ndarray, keys: np.ndarray, policy: MaskingPolicy
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose words; returns what `_choose_tokens` does."""
    assert policy.continues_word is not None
    lengths = np.diff(cu_seqlens)
    sequences = np.repeat(np.arange(len(keys)), lengths)
    columns = np.arange(len(maskable)) - cu_seqlens[sequences]
    wanted = masked_counts(np.bincount(sequences[maskable], minlength=len(keys)), policy)
    continues, hashes = policy.continues_word[input_ids], streams(keys, lengths)
    places = choose_words(maskable, continues, sequences, columns, hashes, wanted, policy.max_predictions)
    return places, hashes[places], np.bincount(sequences[places], minlength=len(keys))


def masked_counts(available: np.ndarray, policy: MaskingPolicy) -> np.ndarray:
    """Say how many of each sequence's maskable tokens are to be masked.

    Args:
        available: int64 (B,), maskable tokens of each sequence.
        policy: how many.

    Returns:
        int64 (B,).
    """
    if policy.tokens_per_sequence is None:
        wanted = np.rint(policy.fraction * available).astype(np.int64)
    else:
        wanted = np.full(len(available), policy.tokens_per_sequence)
    return np.minimum(np.clip(wanted, 1, policy.max_predictions), available)


def _draw_replacements(labels: np.ndarray, hashes: np.ndarray, policy: MaskingPolicy) -> np.ndarray:
    """Draw what stands in place of each masked token, int32 (M,), by the lower half of a hash each."""
    fate = hashes.astype(np.uint32)
    kept = round(policy.keep_probability * 2**32)
    spared = round((policy.keep_probability + policy.random_probability) * 2**32)
    result = np.full(len(labels), policy.mask_token_id, np.int32)
    others = np.flatnonzero(fate < spared)
    # The complement: `choose_subsets` draws places from mix(hash).
    index = scaled(mix(~hashes.take(others)), np.uint64(len(policy.random_token_ids)))
    result[others] = np.where(fate.take(others) < kept, labels.take(others), policy.random_token_ids.take(index))
    return result
