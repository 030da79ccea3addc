"""Which words are masked when words are masked whole (google-research/bert, `create_pretraining_data.py`, May 2019).

Words are taken in random order; one that would exceed the wanted number of tokens is passed over, until the number is
reached or no word is left.  Unlike there, a sequence whose every word is longer than that still gets one of them.
"""

import numpy as np


def choose_words(
    maskable: np.ndarray,
    continues: np.ndarray,
    sequences: np.ndarray,
    columns: np.ndarray,
    hashes: np.ndarray,
    wanted: np.ndarray,
    max_predictions: int,
) -> np.ndarray:
    """Choose whole words in the order of their first tokens' hashes; ties fall to the column.

    A word is a maskable token and the maskable ones right after it that continue it.

    Args:
        maskable: bool (T,).
        continues: bool (T,), whether a token goes on with the word of the token before it.
        sequences: int64 (T,), the sequence of each token, from 0, increasing; at most 65,536 of them.
        columns: int64 (T,), the token's position in its sequence, less than 65,536.
        hashes: uint64 (T,), of which the upper 32 bits count.
        wanted: int64 (B,), tokens to mask in each sequence, at least 1 where any is maskable.
        max_predictions: most masked tokens of a sequence; a word longer than that is masked up to there, and only where
            no word is short enough.

    Returns:
        int64 (M,), positions in T, increasing.
    """
    joined = np.zeros(len(maskable), bool)
    joined[1:] = maskable[1:] & maskable[:-1] & continues[1:] & (columns[1:] > 0)
    borders = np.flatnonzero(~joined)  # a token that joins nothing ends the word before it
    begins = maskable[borders]
    firsts, ends = borders[begins], np.append(borders[1:], len(joined))[begins]
    # One integer a word, sequence | 32 bits of its hash | column, as for tokens.
    order = sequences[firsts].astype(np.uint64) << np.uint64(48)
    order |= (hashes[firsts] >> np.uint64(32)) << np.uint64(16)
    order |= columns[firsts].astype(np.uint64)
    ranked = np.argsort(order)
    owners, sizes = sequences[firsts[ranked]], (ends - firsts)[ranked]

    left = wanted.copy()
    chosen = [_take_fitting(owners, sizes, left)]
    stuck = (left == wanted) & (wanted > 0)
    if stuck.any():
        spare = np.flatnonzero(stuck[owners])
        fitting_first = np.lexsort((spare, sizes[spare] > max_predictions, owners[spare]))
        spare = spare[fitting_first]
        chosen.append(spare[np.unique(owners[spare], return_index=True)[1]])
    words = ranked[np.concatenate(chosen)]
    lengths = np.minimum(ends[words] - firsts[words], max_predictions)
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    positions = np.repeat(firsts[words], lengths) + inside
    positions.sort()
    return positions


def _take_fitting(owners: np.ndarray, sizes: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Go through words in their order and take each that fits into what is left of its sequence; `left` is reduced.

    All sequences at once: words that do not fit now never will, so each round drops those, takes the words before the
    first that does not fit any more, and goes on behind it.  Two or three rounds are usual.

    Returns:
        int64, indices of the words taken.
    """
    words, taken = np.flatnonzero(sizes <= left[owners]), []
    while len(words):
        owner, total = owners[words], np.cumsum(sizes[words])
        counts = np.bincount(owner, minlength=len(left))
        before = np.append(0, total)[np.cumsum(counts) - counts]  # in the sequences before
        total -= np.repeat(before, counts)
        fits = total <= left[owner]
        taken.append(words[fits])
        left -= np.bincount(owner[fits], sizes[words[fits]], len(left)).astype(np.int64)
        words = words[~fits]
        words = words[sizes[words] <= left[owners[words]]]
    return np.concatenate([np.empty(0, np.int64), *taken])
