"""Passes over a held-out set: each sequence once, with the same masks, however micro-batches are bounded and shared."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_pytorch.data import held_out
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.held_out import EvaluationLoader
from bert_pytorch.data.masking import evaluation_policy
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.errors import ConfigError
from bert_pytorch.records import MicroBatch
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import WORDS, make_rows, split_rows
from tests.support.sequences import Sequence, all_sequences

SHARDS = [(0, 90), (90, 91), (91, 200)]
BOUNDS: list[dict[str, Any]] = [
    {"local_batch_size": 4},
    {"max_tokens": 32},
    {"max_tokens": 100, "local_batch_size": 1},
    {"max_tokens": 1_000_000},
    {"packing": "rows", "local_batch_size": 4, "max_sequences_per_row": 3},
    {"packing": "rows", "max_tokens": 5 * 32 + 31},
]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> BatchMaker:
    """200 pairs of up to 32 tokens in three shards."""
    folder, rows = tmp_path_factory.mktemp("pairs"), make_rows(200, 32, seed=1)
    for number, (start, stop) in enumerate(SHARDS):
        write_shard(folder / f"eval_{number}.hdf5", split_rows(rows, start, stop), {})
    return made_of(folder)


def made_of(folder: Path) -> BatchMaker:
    config = DataConfig(input_dir=(str(folder),))
    corpora = open_corpora(config.input_dir, "eval", config, WORDS, lowercase=True)
    return BatchMaker(corpora, WORDS, evaluation_policy(config, WORDS), next_sentence=True)


def passes(batches: BatchMaker, world_size: int, **bounds: Any) -> list[list[MicroBatch]]:
    """Return each rank's micro-batches of one pass."""
    config = DataConfig(**bounds)
    return [list(EvaluationLoader(batches, config, rank=rank, world_size=world_size)) for rank in range(world_size)]


def labelled(batches: Iterable[MicroBatch]) -> list[Sequence]:
    """Return the sequences of micro-batches but those that stand in where a rank has none."""
    return all_sequences(batch for batch in batches if batch.num_masked)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_ranks_hold_every_sequence_once_with_the_masks_of_one_rank_and_take_as_many_steps(
    bounds: dict[str, Any], world_size: int, batches: BatchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = all_sequences(passes(batches, 1, local_batch_size=7)[0])
    assert len(wanted) == 200
    for planned in (1 << 16, 77):
        monkeypatch.setattr(held_out, "_SEQUENCES_PLANNED", planned)
        ranks = passes(batches, world_size, **bounds)
        assert len({len(rank) for rank in ranks}) == 1
        assert labelled(batch for rank in ranks for batch in rank) == wanted


@pytest.mark.parametrize("sizes", ["6,2", "0,8", "1,7,0"])
@pytest.mark.parametrize(
    "bounds", [{}, {"max_tokens": 320}, {"packing": "rows"}, {"packing": "rows", "max_tokens": 320}], ids=str
)
def test_ranks_of_any_sizes_hold_every_sequence_once_and_take_as_many_steps(
    bounds: dict[str, Any], sizes: str, batches: BatchMaker
) -> None:
    wanted = all_sequences(passes(batches, 1, local_batch_size=7)[0])
    ranks = passes(batches, sizes.count(",") + 1, local_batch_sizes=sizes, **bounds)
    assert len({len(rank) for rank in ranks}) == 1
    assert all_sequences(batch for rank in ranks for batch in rank) == wanted
    if not bounds:
        for rank, size in zip(ranks, sizes.split(","), strict=True):
            assert max(batch.num_sequences for batch in rank) == int(size)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_micro_batch_exceeds_its_budget_and_few_are_not_nearly_full(world_size: int, batches: BatchMaker) -> None:
    budget = 160
    ranks = passes(batches, world_size, max_tokens=budget, local_batch_size=1)
    sizes = np.array([batch.num_tokens for rank in ranks for batch in rank])
    assert sizes.max() <= budget
    total = sum(len(sequence.input_ids) for sequence in all_sequences(passes(batches, 1)[0]))
    assert sizes.sum() == total
    assert len(sizes) <= 1.15 * total / budget + world_size


def test_sequences_of_a_shard_that_is_left_out_are_in_no_pass(tmp_path: Path) -> None:
    for number in range(2):
        write_shard(tmp_path / f"eval_{number}.hdf5", make_rows(20, 32, seed=number), {})
    batches = made_of(tmp_path)
    whole = all_sequences(passes(batches, 1, max_tokens=64)[0])
    batches.corpora.exclude(["0:eval_0.hdf5"])
    for bounds in BOUNDS:
        found = labelled(batch for rank in passes(batches, 2, **bounds) for batch in rank)
        assert len(found) == 20
        assert set(found) < set(whole)


def test_a_budget_that_a_held_out_sequence_exceeds_is_refused(batches: BatchMaker) -> None:
    with pytest.raises(ConfigError, match=r"--max_tokens: found 31, wanted at least 32"):
        EvaluationLoader(batches, DataConfig(max_tokens=31))
    EvaluationLoader(batches, DataConfig(max_tokens=32, global_batch_tokens=8))  # that one is of updates
