"""Sequences from tokenized documents: which tokens stand together, planned as spans, then laid out in one go.

Sentence pairs follow §A.2 of Devlin et al. 2019 and google-research/bert's `create_pretraining_data.py` with these
differences: nothing is ever truncated away (a sentence longer than half the room is cut into pieces of about equal
length, so that a partner always fits), a chunk closes before it would overflow, and B is never empty.  Single segments
are those of Liu et al. 2019, §4.2: DOC-SENTENCES, full sentences of one document up to the room; FULL-SENTENCES, which
go on into the next document after a separator.

Outside random B segments each token of each document appears exactly once, in order.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from bert_pytorch.records import SequenceRows

Kind = Literal["pairs", "full_sentences", "doc_sentences"]


class TokenizedDocuments(NamedTuple):
    """Tokens of D documents with S sentences, T tokens in all."""

    ids: np.ndarray
    """int32 (T,)."""
    sentence_offsets: np.ndarray
    """int64 (S + 1,), sentence s is `ids[sentence_offsets[s] : sentence_offsets[s + 1]]`."""
    document_offsets: np.ndarray
    """int64 (D + 1,), document d is sentences `document_offsets[d]` to `document_offsets[d + 1]`, exclusive."""


class Spans(NamedTuple):
    """n sequences as ranges of tokens; without a next-sentence task, B is empty."""

    a_starts: np.ndarray
    """int64 (n,)."""
    a_ends: np.ndarray
    """int64 (n,), exclusive."""
    b_starts: np.ndarray
    """int64 (n,)."""
    b_ends: np.ndarray
    """int64 (n,), exclusive."""
    random_next: np.ndarray
    """int8 (n,), 1 = B is from a random place."""


def room_for_tokens(sequence_length: int, pairs: bool) -> int:
    """Return the tokens a sequence holds besides `[CLS]` and `[SEP]`s."""
    return sequence_length - (3 if pairs else 2)


def cut_long_sentences(documents: TokenizedDocuments, longest: int) -> TokenizedDocuments:
    """Cut sentences longer than `longest` tokens into the fewest pieces, of equal length within one token.

    Sentences and documents without tokens are dropped; `ids` is shared.
    """
    lengths = np.diff(documents.sentence_offsets)
    pieces = -(-lengths // longest)  # 0 for an empty sentence
    owner = np.repeat(np.arange(len(lengths)), pieces)
    first_piece = np.cumsum(pieces) - pieces
    rank = np.arange(len(owner)) - first_piece[owner]
    sizes = lengths[owner] // pieces[owner] + (rank < lengths[owner] % pieces[owner])
    piece_offsets = np.concatenate([[0], np.cumsum(sizes)])
    before = np.concatenate([[0], np.cumsum(pieces)])
    return TokenizedDocuments(documents.ids, piece_offsets, np.unique(before[documents.document_offsets]))


def separate_documents(documents: TokenizedDocuments, sep_id: int) -> TokenizedDocuments:
    """Put a separator after each document that has tokens, as a sentence of its own, and make all of them one document.

    Args:
        documents: any.
        sep_id: id of [SEP], which stands nowhere in `documents.ids`.
    """
    borders = documents.sentence_offsets[documents.document_offsets]
    places = borders[1:][np.diff(borders) > 0]  # where a document's tokens end
    ids = np.insert(documents.ids, places, documents.ids.dtype.type(sep_id))
    ends = documents.sentence_offsets[1:]
    ends = ends + np.searchsorted(places, ends, side="left")  # separators before a sentence move it
    offsets = np.sort(np.concatenate([[0], ends, places + np.arange(1, len(places) + 1)]))
    return TokenizedDocuments(ids, offsets, np.array([0, len(offsets) - 1], np.int64))


def plan_full_sentences(
    separated: TokenizedDocuments,
    sequence_length: int,
    short_seq_prob: float,
    sep_id: int,
    rng: np.random.Generator,
) -> Spans:
    """Plan single segments that cross the borders of documents (FULL-SENTENCES).

    Args:
        separated: from `separate_documents`.
        sequence_length: length of a row, special tokens included.
        short_seq_prob: how often a sequence aims at a uniformly drawn length (RoBERTa: never).
        sep_id: the separator; none stays at a segment's start or end, where [CLS] and [SEP] say the same.
        rng: source of every draw.
    """
    spans = plan_sequences(separated, sequence_length, short_seq_prob, 0.0, rng)
    starts = spans.a_starts + (separated.ids[spans.a_starts] == sep_id)
    ends = np.maximum(starts, spans.a_ends - (separated.ids[spans.a_ends - 1] == sep_id))
    kept = ends > starts
    starts, ends = starts[kept], ends[kept]
    return Spans(starts, ends, ends, ends, spans.random_next[kept])


def plan_sequences(
    documents: TokenizedDocuments,
    sequence_length: int,
    short_seq_prob: float,
    next_seq_prob: float,
    rng: np.random.Generator,
) -> Spans:
    """Plan the sequences of one pass over documents.

    Args:
        documents: any; long sentences are cut here.
        sequence_length: length of a row, special tokens included.
        short_seq_prob: how often a sequence aims at a uniformly drawn length instead of the full room.
        next_seq_prob: how often B is a random text; 0 plans single segments.
        rng: source of every draw.
    """
    pairs = next_seq_prob > 0
    room = room_for_tokens(sequence_length, pairs)
    cut = cut_long_sentences(documents, room // 2 if pairs else room)
    draw = _uniforms(rng).__next__
    if pairs:
        plan = _plan_pairs(cut, room, short_seq_prob, next_seq_prob, draw)
    else:
        plan = _plan_singles(cut, room, short_seq_prob, draw)
    columns = np.array(plan, np.int64).reshape(-1, 5).T
    return Spans(columns[0], columns[1], columns[2], columns[3], columns[4].astype(np.int8))


_Plan = list[tuple[int, int, int, int, int]]


def _plan_singles(documents: TokenizedDocuments, room: int, short_seq_prob: float, draw: Callable[[], float]) -> _Plan:
    plan: _Plan = []
    offsets, borders = documents.sentence_offsets.tolist(), documents.document_offsets.tolist()
    for document in range(len(borders) - 1):
        first, last = borders[document], borders[document + 1]
        while first < last:
            stop = _chunk_end(offsets, first, last, _target(room, short_seq_prob, draw), room)
            plan.append((offsets[first], offsets[stop], offsets[stop], offsets[stop], 0))
            first = stop
    return plan


def _plan_pairs(
    documents: TokenizedDocuments,
    room: int,
    short_seq_prob: float,
    next_seq_prob: float,
    draw: Callable[[], float],
) -> _Plan:
    plan: _Plan = []
    offsets, borders = documents.sentence_offsets.tolist(), documents.document_offsets.tolist()
    count = len(borders) - 1
    for document in range(count):
        first, last = borders[document], borders[document + 1]
        while first < last:
            target = _target(room, short_seq_prob, draw)
            stop = _chunk_end(offsets, first, last, target, room)
            alone = stop == first + 1
            middle = stop if alone else first + 1 + int(draw() * (stop - first - 1))
            start, end = offsets[first], offsets[middle]
            if alone or draw() < next_seq_prob:
                other = document
                if count > 1:
                    other = int(draw() * (count - 1))
                    other += other >= document
                begin, limit = borders[other], borders[other + 1]
                begin += int(draw() * (limit - begin))
                b_start = offsets[begin]
                # Whole sentences until the target is reached, the last one clipped to the room left.
                close = bisect_left(offsets, b_start + max(1, target - (end - start)), begin + 1, limit)
                plan.append((start, end, b_start, min(offsets[close], b_start + room - (end - start)), 1))
                first = middle  # the rest of the chunk is put back
            else:
                plan.append((start, end, end, offsets[stop], 0))
                first = stop
    return plan


def _target(room: int, short_seq_prob: float, draw: Callable[[], float]) -> int:
    return 2 + int(draw() * (room - 1)) if draw() < short_seq_prob else room


def _chunk_end(offsets: list[int], first: int, last: int, target: int, room: int) -> int:
    """Return where a chunk that starts with sentence `first` ends: at `target` tokens, or before it would overflow."""
    stop = bisect_left(offsets, offsets[first] + target, first + 1, last)
    return stop - (offsets[stop] - offsets[first] > room)


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(4096).tolist()


class Frame(NamedTuple):
    """What stands around tokens in a row."""

    sequence_length: int
    cls_id: int
    sep_id: int
    pad_id: int
    pairs: bool
    """Whether rows have a B."""


def row_lengths(spans: Spans, pairs: bool) -> np.ndarray:
    """Return the lengths of the rows that spans become, special tokens included, int64 (n,)."""
    return 2 + spans.a_ends - spans.a_starts + pairs * (1 + spans.b_ends - spans.b_starts)


def lay_out(ids: np.ndarray, spans: Spans, frame: Frame) -> SequenceRows:
    """Write planned sequences as padded rows `[CLS] A [SEP] (B [SEP])`.

    Args:
        ids: integers (T,), the tokens that spans point into.
        spans: n sequences.
        frame: length and special tokens of a row.
    """
    _, cls_id, sep_id, _, pairs = frame
    rows = np.full((len(spans.a_starts), frame.sequence_length), frame.pad_id, np.int32)
    which = np.arange(len(rows))
    after_a = 1 + spans.a_ends - spans.a_starts
    rows[:, 0] = cls_id
    _copy_ranges(ids, spans.a_starts, spans.a_ends, rows, np.ones_like(after_a))
    rows[which, after_a] = sep_id
    lengths = after_a + 1
    if pairs:
        _copy_ranges(ids, spans.b_starts, spans.b_ends, rows, after_a + 1)
        lengths = lengths + spans.b_ends - spans.b_starts + 1
        rows[which, lengths - 1] = sep_id
    return SequenceRows(
        input_ids=rows,
        lengths=lengths.astype(np.int32),
        segment_b_starts=(after_a + 1).astype(np.int32),
        next_sentence_labels=spans.random_next if pairs else None,
        static_masks=None,
    )


def _copy_ranges(ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Copy `ids[starts[i] : ends[i]]` to row i from column `columns[i]` on, for all i at once."""
    counts = ends - starts
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    places = np.repeat(np.arange(len(rows)) * rows.shape[1] + columns, counts) + steps
    rows.reshape(-1)[places] = ids[np.repeat(starts, counts) + steps]
