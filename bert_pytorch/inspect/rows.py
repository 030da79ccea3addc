"""From rows of a shard to samples as a training sees them."""

from collections.abc import Iterator

import numpy as np

from bert_pytorch.data.masking import MaskingPolicy
from bert_pytorch.data.packing import masked_batch
from bert_pytorch.inspect.samples import Sample
from bert_pytorch.records import SequenceRows, Vocabulary


def samples_of(
    rows: SequenceRows, keys: np.ndarray | None, vocabulary: Vocabulary | None, policy: MaskingPolicy | None
) -> Iterator[Sample]:
    """Yield each row without its padding.

    Args:
        rows: n rows, with masks or without.
        keys: uint64 (n,), from which masks are drawn where rows have none; None draws none.
        vocabulary: of the rows; needed with keys.
        policy: how they are drawn; needed with keys.
    """
    shown, originals = rows.input_ids, rows.input_ids.copy()
    masked = np.zeros(shown.shape, bool)
    if rows.static_masks is not None:
        positions, token_ids, counts = rows.static_masks
        row, slot = np.nonzero(np.arange(positions.shape[1]) < counts[:, None])
        originals[row, positions[row, slot]] = token_ids[row, slot]
        masked[row, positions[row, slot]] = True
    elif keys is not None and vocabulary is not None and policy is not None:
        shown, masked = _dynamic(rows, keys, vocabulary, policy)
    for index, length in enumerate(rows.lengths.tolist()):
        yield Sample(
            input_ids=shown[index, :length],
            originals=originals[index, :length],
            masked=masked[index, :length],
            segment_b_start=int(rows.segment_b_starts[index]),
            next_sentence_label=None if rows.next_sentence_labels is None else int(rows.next_sentence_labels[index]),
            padding=rows.input_ids.shape[1] - length,
        )


def _dynamic(
    rows: SequenceRows, keys: np.ndarray, vocabulary: Vocabulary, policy: MaskingPolicy
) -> tuple[np.ndarray, np.ndarray]:
    """Mask rows as the loader does: ids int32 (n, L), masked bool (n, L)."""
    roles = vocabulary.special
    is_special = np.zeros(len(vocabulary.tokens), bool)
    is_special[[vocabulary.id_of(token) for token in (roles.pad, roles.cls, roles.sep, roles.mask)]] = True
    batch = masked_batch(rows, keys, policy, is_special, next_sentence=False)
    chosen = np.zeros(batch.num_tokens, bool)
    chosen[batch.masked_positions] = True
    inside = np.arange(rows.input_ids.shape[1]) < rows.lengths[:, None]
    shown, masked = rows.input_ids.copy(), np.zeros(inside.shape, bool)
    shown[inside], masked[inside] = batch.input_ids, chosen
    return shown, masked
