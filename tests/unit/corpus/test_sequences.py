"""Sequence building: no token lost, none doubled, order kept (E7), whatever the documents look like."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus.sequences import (
    Frame,
    Spans,
    TokenizedDocuments,
    cut_long_sentences,
    lay_out,
    plan_full_sentences,
    plan_sequences,
    room_for_tokens,
    separate_documents,
)

CLS, SEP, FIRST = 2, 3, 5

documents_strategy = st.lists(
    st.lists(st.one_of(st.integers(0, 12), st.integers(0, 400)), min_size=0, max_size=14), min_size=1, max_size=6
)
"""Lengths of the sentences of each document: empty sentences and documents, single tokens, giants."""


def tokenized(documents: list[list[int]]) -> TokenizedDocuments:
    """Give every token of the corpus an id of its own, so that a token's origin can be told from its id."""
    lengths = [length for document in documents for length in document]
    borders = np.cumsum([0, *(len(document) for document in documents)])
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    return TokenizedDocuments(np.arange(FIRST, FIRST + offsets[-1], dtype=np.int32), offsets, borders)


def plan(documents: list[list[int]], length: int, short: float, random_next: float, seed: int) -> Spans:
    return plan_sequences(tokenized(documents), length, short, random_next, np.random.default_rng(seed))


def read_back(spans: Spans) -> list[int]:
    """Concatenate what stands outside random B segments, in the order of the plan."""
    tokens: list[int] = []
    for a_start, a_end, b_start, b_end, is_random in zip(*(column.tolist() for column in spans), strict=True):
        tokens += range(a_start, a_end)
        tokens += [] if is_random else range(b_start, b_end)
    return tokens


@settings(max_examples=150, deadline=None)
@given(
    documents_strategy,
    st.integers(8, 160),
    st.sampled_from([0.0, 0.1, 1.0]),
    st.sampled_from([0.01, 0.5, 0.99]),
    st.integers(0, 999),
)
def test_pairs_hold_each_token_exactly_once_in_order_outside_random_b(
    documents: list[list[int]], length: int, short: float, random_next: float, seed: int
) -> None:
    spans = plan(documents, length, short, random_next, seed)
    assert read_back(spans) == list(range(sum(map(sum, documents))))


@settings(max_examples=200, deadline=None)
@given(documents_strategy, st.integers(8, 160), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 999))
def test_single_segments_hold_each_token_exactly_once_in_order(
    documents: list[list[int]], length: int, short: float, seed: int
) -> None:
    spans = plan(documents, length, short, 0.0, seed)
    assert read_back(spans) == list(range(sum(map(sum, documents))))
    assert (spans.b_starts == spans.b_ends).all()


@settings(max_examples=150, deadline=None)
@given(documents_strategy, st.integers(8, 160), st.sampled_from([0.0, 0.3]), st.integers(0, 999))
def test_full_sentences_go_on_after_one_separator_and_lose_no_token(
    documents: list[list[int]], length: int, short: float, seed: int
) -> None:
    corpus = tokenized(documents)
    separated = separate_documents(corpus, SEP)
    spans = plan_full_sentences(separated, length, short, SEP, np.random.default_rng(seed))
    document_of = np.repeat(np.arange(len(documents)), [sum(document) for document in documents])
    segments = [separated.ids[a:b].tolist() for a, b in zip(spans.a_starts, spans.a_ends, strict=True)]
    assert [token for segment in segments for token in segment if token != SEP] == corpus.ids.tolist()
    for segment in segments:
        assert 0 < len(segment) <= length - 2
        owners = [None if token == SEP else int(document_of[token - FIRST]) for token in segment]
        assert owners[0] is not None
        assert owners[-1] is not None
        for before, here, after in zip(owners, owners[1:], owners[2:], strict=False):
            if here is None:
                assert before is not None
                assert after is not None
                assert after > before
            elif before is not None:
                assert here == before  # no border of documents without its separator


def test_full_sentences_fill_the_room() -> None:
    """With one-token sentences nothing but the end of the text leaves room."""
    separated = separate_documents(tokenized([[1] * 50, [1] * 333, [], [1] * 7, [1] * 1000]), SEP)
    spans = plan_full_sentences(separated, 32, 0.0, SEP, np.random.default_rng(0))
    assert (spans.a_ends - spans.a_starts >= 29).sum() >= len(spans.a_starts) - 1  # a separator at an edge is dropped
    crossing = [SEP in separated.ids[a:b].tolist() for a, b in zip(spans.a_starts, spans.a_ends, strict=True)]
    assert sum(crossing) >= 2


@settings(max_examples=150, deadline=None)
@given(documents_strategy, st.integers(8, 160), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 999))
def test_pairs_fit_and_neither_segment_is_empty_and_each_stays_in_one_document(
    documents: list[list[int]], length: int, short: float, seed: int
) -> None:
    spans = plan(documents, length, short, 0.5, seed)
    ends = np.cumsum([sum(document) for document in documents])
    document_of = lambda tokens: np.searchsorted(ends, tokens, side="right")  # noqa: E731
    a_lengths, b_lengths = spans.a_ends - spans.a_starts, spans.b_ends - spans.b_starts
    assert (a_lengths >= 1).all()
    assert (b_lengths >= 1).all()
    assert (a_lengths + b_lengths <= room_for_tokens(length, pairs=True)).all()
    assert (document_of(spans.a_starts) == document_of(spans.a_ends - 1)).all()
    assert (document_of(spans.b_starts) == document_of(spans.b_ends - 1)).all()
    actual = spans.random_next == 0
    assert (spans.b_starts[actual] == spans.a_ends[actual]).all()
    with_tokens = sum(sum(document) > 0 for document in documents)
    if with_tokens > 1:
        other = document_of(spans.b_starts) != document_of(spans.a_starts)
        assert other[~actual].all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(1, 70))
def test_a_long_sentence_becomes_the_fewest_pieces_of_equal_length(lengths: list[int], longest: int) -> None:
    cut = cut_long_sentences(tokenized([lengths]), longest)
    pieces = np.diff(cut.sentence_offsets).tolist()
    wanted = []
    for length in lengths:
        count = -(-length // longest)
        wanted += [length // count + (index < length % count) for index in range(count)]
    assert pieces == wanted
    assert max(pieces, default=0) <= longest


def test_short_sentences_are_never_cut() -> None:
    spans = plan([[20] * 40, [13] * 70], 128, 0.1, 0.5, 0)
    borders = set(tokenized([[20] * 40, [13] * 70]).sentence_offsets.tolist())
    assert set(spans.a_starts.tolist()) | set(spans.a_ends.tolist()) <= borders


def test_next_sentence_labels_follow_the_probability_where_chunks_have_a_choice() -> None:
    spans = plan([[5] * 3000] * 10, 128, 0.0, 0.3, 1)
    n = len(spans.random_next)
    assert n > 1000
    assert abs(spans.random_next.mean() - 0.3) < 4.5 * np.sqrt(0.3 * 0.7 / n)


def test_a_lone_sentence_gets_a_random_partner() -> None:
    spans = plan([[9], [30]], 64, 0.0, 0.01, 0)
    assert spans.random_next.tolist() == [1, 1]
    assert [spans.b_starts[0] >= 9, spans.b_ends[1] <= 9] == [True, True]


def test_random_partners_are_spread_over_all_other_documents() -> None:
    spans = plan([[8] * 30] * 20, 64, 0.0, 0.9, 0)
    partner = spans.b_starts[spans.random_next == 1] // 240
    assert len(collections.Counter(partner.tolist())) == 20


def test_targets_are_short_as_often_as_asked() -> None:
    full, short = (plan([[1] * 200000], 128, probability, 0.0, 0) for probability in (0.0, 0.1))
    assert ((full.a_ends - full.a_starts)[:-1] == 126).all()
    lengths = short.a_ends - short.a_starts
    assert abs((lengths < 126).mean() - 0.1 * 124 / 125) < 4.5 * np.sqrt(0.09 / len(lengths))
    assert lengths.min() < 15


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_rows_have_the_contracted_structure(probability: float) -> None:
    documents = [[7, 30, 2, 90, 11], [4], [300, 1]]
    corpus = tokenized(documents)
    spans = plan(documents, 32, 0.1, probability, 3)
    rows = lay_out(corpus.ids, spans, Frame(32, CLS, SEP, 0, pairs=probability > 0))
    assert rows.input_ids.dtype == np.int32
    for index, row in enumerate(rows.input_ids.tolist()):
        a = corpus.ids[spans.a_starts[index] : spans.a_ends[index]].tolist()
        b = corpus.ids[spans.b_starts[index] : spans.b_ends[index]].tolist()
        wanted = [CLS, *a, SEP, *b, SEP] if probability else [CLS, *a, SEP]
        assert row == wanted + [0] * (32 - len(wanted))
        assert rows.lengths[index] == len(wanted)
        assert rows.segment_b_starts[index] == (len(a) + 2 if probability else len(wanted))
    assert (rows.next_sentence_labels is None) == (probability == 0)
