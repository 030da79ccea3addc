"""What can be wrong with the rows of a shard: each kind named once, with the rows that have it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bert_pytorch.records import SequenceRows, Vocabulary


def row_problems(
    rows: SequenceRows, vocabulary: Vocabulary | None, *, crosses_documents: bool
) -> Iterator[tuple[str, Any]]:
    """Yield each kind of problem, whether or not a row has it, with the rows that do, bool (n,).

    Args:
        rows: n rows.
        vocabulary: theirs; None leaves out what cannot be told without it.
        crosses_documents: whether a separator may stand inside a segment (FULL-SENTENCES).
    """
    ids, lengths = rows.input_ids, rows.lengths
    which, columns = np.arange(len(ids)), np.arange(ids.shape[1])
    bad_edges = (
        (lengths < 3) | (lengths > ids.shape[1]) | (rows.segment_b_starts < 2) | (rows.segment_b_starts > lengths)
    )
    yield "its lengths and positions are impossible", bad_edges
    if rows.next_sentence_labels is not None:
        yield "segment B is empty", ~bad_edges & (rows.segment_b_starts >= lengths - 1)
        yield "the next-sentence label is neither 0 nor 1", (rows.next_sentence_labels & ~1) != 0
    if bad_edges.any():
        return
    pad_id = 0 if vocabulary is None else vocabulary.pad_id
    yield "something stands in the padding", ((columns >= lengths[:, None]) & (ids != pad_id)).any(axis=1)
    if vocabulary is not None:
        size, special = len(vocabulary.tokens), vocabulary.special
        yield f"an id outside the vocabulary's 0 … {size - 1}", ((ids < 0) | (ids >= size)).any(axis=1)
        cls_id, sep_id = vocabulary.cls_id, vocabulary.sep_id
        yield f"it does not start with {special.cls}", ids[:, 0] != cls_id
        borders = (ids[which, lengths - 1] != sep_id) | (ids[which, rows.segment_b_starts - 1] != sep_id)
        yield f"its segments do not end with {special.sep}", borders
        inner = (columns > 0) & (columns < lengths[:, None] - 1) & (columns != rows.segment_b_starts[:, None] - 1)
        stray = [cls_id, pad_id]
        if not crosses_documents:
            stray.append(sep_id)
        if rows.static_masks is None:
            stray.append(vocabulary.id_of(special.mask))
        yield "a special token stands inside a segment", (inner & np.isin(ids, stray)).any(axis=1)
        if crosses_documents:
            twice = (ids[:, 1:] == sep_id) & (ids[:, :-1] == sep_id) & (columns[1:] < lengths[:, None])
            yield f"two {special.sep} follow each other", twice.any(axis=1)
    if rows.static_masks is not None:
        yield from _mask_problems(rows, vocabulary)


def _mask_problems(rows: SequenceRows, vocabulary: Vocabulary | None) -> Iterator[tuple[str, Any]]:
    assert rows.static_masks is not None
    positions, token_ids, counts = rows.static_masks
    used = np.arange(positions.shape[1]) < counts[:, None]
    yield "none of its tokens is masked", counts == 0
    yield "a used slot of masked_lm_positions follows an empty one", ((positions != 0) != used).any(axis=1)
    yield "masked_lm_ids holds an id in a slot without a position", ((token_ids != 0) & (positions == 0)).any(axis=1)
    steps = np.diff(positions, axis=1)[:, : positions.shape[1] - 1]
    yield "masked positions do not increase (one is masked twice?)", (used[:, 1:] & (steps <= 0)).any(axis=1)
    last, middle = rows.lengths[:, None] - 1, rows.segment_b_starts[:, None] - 1
    special = used & ((positions <= 0) | (positions >= last) | (positions == middle))
    yield "a special token or padding is masked", special.any(axis=1)
    if vocabulary is not None:
        roles = vocabulary.special
        special_ids = [vocabulary.id_of(token) for token in (roles.pad, roles.cls, roles.sep, roles.mask)]
        wrong = np.isin(token_ids, special_ids) | (token_ids < 0) | (token_ids >= len(vocabulary.tokens))
        yield "masked_lm_ids holds a special token or an id outside the vocabulary", (used & wrong).any(axis=1)
