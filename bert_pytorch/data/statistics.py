"""Counts over a whole set, streamed."""

import numpy as np

from bert_pytorch.data.corpora import RowSource

_ROWS_AT_ONCE = 4096


def token_counts(shards: RowSource) -> np.ndarray:
    """Count each token id over all rows before corruption, padding and shards that are left out not: int64 (ids,)."""
    counts = np.zeros(1, np.int64)
    for start in range(0, shards.num_sequences, _ROWS_AT_ONCE):
        indices = np.arange(start, min(start + _ROWS_AT_ONCE, shards.num_sequences))
        if shards.excluded:
            indices = indices[~np.isin(shards.owners(indices), list(shards.excluded))]
        if not len(indices):
            continue
        rows = shards.rows(indices)
        ids = rows.input_ids
        if rows.static_masks is not None:
            masks, ids = rows.static_masks, ids.copy()
            row, slot = np.nonzero(np.arange(masks.positions.shape[1]) < masks.counts[:, None])
            ids[row, masks.positions[row, slot]] = masks.token_ids[row, slot]
        inside = ids[np.arange(ids.shape[1]) < rows.lengths[:, None]]
        found = np.bincount(inside)
        size = max(len(counts), len(found))
        counts = np.pad(counts, (0, size - len(counts))) + np.pad(found, (0, size - len(found)))
    return counts


def unigram_entropy(*sources: RowSource) -> float:
    """Return the entropy of the tokens, special ones left out, in nats: the loss of knowing frequencies only.

    The unknown token counts as a word.  Without a vocabulary the two commonest positions' ids, [CLS] and [SEP], are
    recognised by standing at the ends of rows.

    Args:
        sources: sets of one vocabulary, counted together.
    """
    each = [token_counts(source).astype(np.float64) for source in sources]
    counts = np.zeros(max(map(len, each)))
    for found in each:
        counts[: len(found)] += found
    counts[_special_ids(sources[0], len(counts))] = 0
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _special_ids(shards: RowSource, size: int) -> list[int]:
    if shards.vocabulary is not None:
        ids = list(shards.vocabulary.structural_ids)
    else:
        first = shards.rows(np.zeros(1, np.int64))
        ids = [0, int(first.input_ids[0, 0]), int(first.input_ids[0, first.lengths[0] - 1])]
    return [index for index in ids if index < size]
