"""Damaged shards met on the way, and other failures of the loader: in their turn, told, and gone for good."""

import errno
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest

from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.errors import DamagedShardError, WorkerError
from bert_pytorch.inspect.batch import split
from bert_pytorch.records import WORDPIECE_SPECIALS
from bert_pytorch.runtime.distributed import World
from bert_pytorch.shards.writing import write_shard
from bert_pytorch.training.feed import Feed
from tests.support.sequence_rows import WORDS, make_rows

BAD = 2
"""The shard whose sequences consist of one word, so that they can be told; a late row of it is damaged."""
ITS_WORD = 99
MODES: dict[str, dict[str, Any]] = {
    "count": {},
    "token budget": {"global_batch_tokens": 200, "max_tokens": 64},
    "grouped": {"length_group_updates": 3},
    "rows": {"packing": "rows", "max_sequences_per_row": 4},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five shards of 30 rows; a row of one has an id that no vocabulary has."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS.tokens) + "\n")
    for number in range(5):
        rows = make_rows(30, seed=number)
        words = rows.input_ids > len(WORDPIECE_SPECIALS)
        rows.input_ids[words] = ITS_WORD if number == BAD else np.minimum(rows.input_ids[words], ITS_WORD - 1)
        write_shard(tmp_path / f"train_{number}.hdf5", rows, {})
    with h5py.File(tmp_path / f"train_{BAD}.hdf5", "r+") as file:
        file["input_ids"][27, 1] = 10**6
    return tmp_path


def loader_of(folder: Path, workers: int = 0, **mode: Any) -> TrainingLoader:
    batch = {} if "global_batch_tokens" in mode else {"global_batch_size": 16, "local_batch_size": 4}
    config = DataConfig.model_validate({"input_dir": str(folder), "num_workers": workers, "seed": 3, **batch, **mode})
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    return TrainingLoader(BatchMaker(corpora, WORDS, policy_for(config, WORDS), next_sentence=True), config)


def drawn(loader: TrainingLoader, count: int, position: int = 0, number: int = 0) -> tuple[list[Update], list[int]]:
    """Take updates by a feed that skips; returns them, and the number of the update that each exclusion came with."""
    feed, updates, excluded = Feed(loader, World(), "skip"), [], []
    for at in range(number, number + count):
        updates.append(feed.update(position, at))
        position = updates[-1].end_position
        excluded += [at for _ in feed.new_exclusions()]
    feed.close()
    return updates, excluded


def assert_same(ours: list[Update], theirs: list[Update]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one[1:] == other[1:]
        for left, right in zip(one.micro_batches, other.micro_batches, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))  # type: ignore[arg-type]


def has_its_word(update: Update) -> bool:
    return any((s.originals == ITS_WORD).any() for batch in update.micro_batches for s in split(batch))


@pytest.mark.parametrize("mode", MODES)
def test_a_skipped_shard_is_gone_from_the_same_update_on_whatever_works_ahead_or_resumes(
    mode: str, folder: Path
) -> None:
    alone, (first,) = drawn(loader_of(folder, 0, **MODES[mode]), 24)
    ahead, again = drawn(loader_of(folder, 4, **MODES[mode]), 24)
    assert [first] == again
    assert_same(alone, ahead)
    assert not any(map(has_its_word, alone[first:]))
    assert any(map(has_its_word, alone[:first]))
    assert alone[-1].epoch >= 1
    resumed = loader_of(folder, 2, **MODES[mode])
    resumed.exclude([f"0:train_{BAD}.hdf5"])
    begun = first + 1
    assert_same(drawn(resumed, 24 - begun, alone[begun].start_position, begun)[0], alone[begun:])
    assert sum(batch.num_sequences for batch in alone[first].micro_batches) > 0


def test_stopping_names_file_and_row_after_the_updates_before_it(folder: Path) -> None:
    whole, (first,) = drawn(loader_of(folder), 12)
    feed = Feed(loader_of(folder, 4), World(), "stop")
    position = 0
    for number in range(first):
        position = feed.update(position, number).end_position
    with pytest.raises(DamagedShardError, match=rf"train_{BAD}.hdf5: row 27: .*1000000"):
        feed.update(position, first)
    feed.close()
    assert position == whole[first].start_position
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_what_is_said_of_a_skipped_shard(folder: Path) -> None:
    feed = Feed(loader_of(folder, 1), World(), "skip")
    position = 0
    for number in range(24):
        position = feed.update(position, number).end_position
    ((shard, sequences, reason),) = feed.new_exclusions()
    assert (shard, sequences, feed.excluded()) == (f"0:train_{BAD}.hdf5", 30, [f"0:train_{BAD}.hdf5"])
    assert f"{folder}/train_{BAD}.hdf5: row 27: " in reason
    assert feed.new_exclusions() == []
    feed.close()


@pytest.mark.parametrize("workers", [0, 3])
def test_a_failed_read_tells_the_update_and_keeps_no_thread(workers: int, folder: Path) -> None:
    stream = loader_of(folder, workers).stream(16, 1)
    lost = OSError(errno.EIO, "Input/output error", str(folder / "train_0.hdf5"))
    with (
        mock.patch.object(BatchMaker, "make_all", side_effect=lost),
        pytest.raises(WorkerError, match=r"train_0.hdf5: .*update 2 of the phase, samples 16 to 31"),
    ):
        next(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("workers", [0, 3])
def test_a_defect_keeps_its_kind_and_tells_the_update(workers: int, folder: Path) -> None:
    stream = loader_of(folder, workers).stream(0)
    with (
        mock.patch.object(TrainingLoader, "plan", side_effect=ZeroDivisionError("division by zero")),
        pytest.raises(ZeroDivisionError) as told,
    ):
        next(stream)
    assert told.value.__notes__ == ["while making update 1 of the phase, from sample 0"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
