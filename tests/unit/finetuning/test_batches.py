"""Which sequences an update takes, and how they are cut: nothing lost, nothing doubled, no budget passed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.finetuning.batches import TaskFeed, deal, passes, take
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.tasks.features import Features

COUNT = 37


def features(labels: str = "sequences") -> Features:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 20, COUNT)
    tokens = int(lengths.sum())
    return Features(
        input_ids=np.arange(tokens, dtype=np.int32),
        segment_b_starts=(lengths // 2).astype(np.int32),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
        examples=np.arange(COUNT, dtype=np.int32),
        labels=np.arange(COUNT if labels == "sequences" else tokens),
    )


def config(**changes: Any) -> FinetuningConfig:
    return FinetuningConfig(max_seq_length=32, **changes)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 6), st.integers(50, 300)
)
def test_dealing_gives_each_sequence_once_and_keeps_the_budget(
    lengths: list[int], ranks: int, at_least: int, max_tokens: int
) -> None:
    sizes = np.array(lengths)
    shares = deal(sizes, ranks=ranks, at_least=at_least, max_tokens=max_tokens)
    assert len(shares) == ranks
    assert len({len(share) for share in shares}) == 1
    pieces = [piece for share in shares for piece in share]
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))
    assert max(int(sizes[piece].sum()) for piece in pieces) <= max_tokens
    assert len(shares[0]) >= min(at_least, -(-len(lengths) // ranks))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


@pytest.mark.parametrize("labels", ["sequences", "tokens"])
def test_a_batch_is_its_sequences_end_to_end(labels: str) -> None:
    source, chosen = features(labels), np.array([5, 2, 30])
    batch = take(source, chosen)
    starts = source.cu_seqlens
    parts = [source.input_ids[starts[number] : starts[number + 1]] for number in chosen]
    assert np.array_equal(batch.inputs.input_ids, np.concatenate(parts))
    assert np.array_equal(batch.inputs.position_ids, np.concatenate([np.arange(len(part)) for part in parts]))
    segments = [np.arange(len(part)) >= len(part) // 2 for part in parts]
    assert np.array_equal(batch.inputs.token_type_ids, np.concatenate(segments))
    assert np.array_equal(batch.labels, chosen if labels == "sequences" else np.concatenate(parts))


@pytest.mark.parametrize("changes", [{}, {"length_group_updates": 4}])
def test_an_epoch_takes_every_sequence_once_whatever_the_ranks_and_micro_batches(changes: dict[str, Any]) -> None:
    source = features()
    one = TaskFeed(source, config(train_batch_size=5, **changes))
    ranks = [
        TaskFeed(source, config(train_batch_size=5, max_tokens=40, **changes), rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    seen: list[int] = []
    for number in range(8 if changes else 7):
        whole = one.update(5 * number, number)
        parts = [feed.update(5 * number, number) for feed in ranks]
        drawn = np.concatenate([batch.sequences for batch in whole.micro_batches])
        others = np.concatenate([batch.sequences for part in parts for batch in part.micro_batches])
        assert sorted(drawn) == sorted(others)
        assert whole.end_position == 5 * number + 5
        seen += drawn.tolist()
    if changes:  # windows of 20 of the stream, sorted within
        assert set(range(COUNT)) <= set(seen)
    else:
        assert len(set(seen)) == 35


def test_a_pass_scores_every_sequence_once_with_as_many_batches_on_every_rank() -> None:
    source = features()
    settings = config(predict_batch_size=4, max_tokens=50)
    by_rank = [list(passes(source, settings, rank=rank, world_size=3)) for rank in range(3)]
    assert len({len(batches) for batches in by_rank}) == 1
    seen = [number for batches in by_rank for batch in batches for number in batch.sequences.tolist()]
    assert sorted(seen) == list(range(COUNT))
    assert max(batch.num_tokens for batches in by_rank for batch in batches) <= 50
