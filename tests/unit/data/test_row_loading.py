"""`--packing rows`: the samples and masks of `--packing tokens` in the same updates, always in one shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.errors import ConfigError
from bert_pytorch.records import SPECIAL_TOKENS, MicroBatch, SequenceRows, Vocabulary
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import WORDS, make_rows, split_rows
from tests.support.sequences import all_sequences

ROWS = {"packing": "rows", "local_batch_size": 3, "max_sequences_per_row": 4}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 pairs of up to 32 tokens in three shards."""
    return write_set(tmp_path_factory.mktemp("pairs"), make_rows(100, 32, seed=1))


def write_set(folder: Path, rows: SequenceRows) -> Path:
    for number, (start, stop) in enumerate([(0, 40), (40, 41), (41, 100)]):
        write_shard(folder / f"train_{number}.hdf5", split_rows(rows, start, stop), {})
    return folder


def opened(config: DataConfig) -> Corpora:
    return open_corpora(config.input_dir, "train", config, WORDS, lowercase=True)


def loader(config: DataConfig, rank: int = 0, world_size: int = 1, *, pairs: bool = True) -> TrainingLoader:
    batches = BatchMaker(opened(config), WORDS, policy_for(config, WORDS), next_sentence=pairs)
    return TrainingLoader(batches, config, rank=rank, world_size=world_size)


def updates(config: DataConfig, count: int, world_size: int = 1, *, pairs: bool = True) -> list[list[Update]]:
    """Return the first updates, each of all ranks."""
    found: list[list[Update]] = []
    loaders = [loader(config, rank, world_size, pairs=pairs) for rank in range(world_size)]
    for number in range(count):
        position = found[-1][0].end_position if found else 0
        found.append([each.update_at(position, number) for each in loaders])
    return found


def batches_of(update: list[Update]) -> list[MicroBatch]:
    return [batch for rank in update for batch in rank.micro_batches]


def shapes(batch: MicroBatch) -> tuple[Any, ...]:
    return tuple((field.shape, field.dtype.str) if isinstance(field, np.ndarray) else field for field in batch)


MODES: list[dict[str, Any]] = [
    {"global_batch_size": 37},
    {"global_batch_size": 5},  # fewer rows than the ranks have room for
    {"global_batch_tokens": 700},
    {"global_batch_size": 37, "batch_ramp_updates": 6, "batch_ramp_start": 4},
    {"global_batch_size": 37, "length_curriculum_updates": 6, "length_curriculum_start": 8},
    {"global_batch_size": 37, "shuffle_window": 1},
    {"global_batch_size": 37, "whole_word_masking": True},
    {"global_batch_size": 37, "masked_tokens_per_seq": 3},
    {"global_batch_size": 37, "masked_token_fraction": 0.9},
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_updates_have_the_samples_and_masks_of_the_packed_form_in_one_shape(mode: dict[str, Any], corpus: Path) -> None:
    packed = updates(DataConfig(input_dir=(str(corpus),), **mode), 9)
    for world_size in (1, 2, 3):
        fixed = updates(DataConfig(input_dir=(str(corpus),), **mode, **ROWS), 9, world_size)
        assert len({shapes(batch) for update in fixed for batch in batches_of(update)}) == 1
        assert batches_of(fixed[0])[0].input_ids.shape == (3 * 32,)
        for found, (wanted,) in zip(fixed, packed, strict=True):
            assert len({len(rank.micro_batches) for rank in found}) == 1
            assert {(each.start_position, each.end_position, each.epoch) for each in found} == {
                (wanted.start_position, wanted.end_position, wanted.epoch)
            }
            assert all_sequences(batches_of(found)) == all_sequences(wanted.micro_batches)
            for name in ("num_tokens", "num_masked", "num_pairs"):
                assert sum(getattr(each, name) for each in found) == getattr(wanted, name)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_holds_every_sample_once(corpus: Path, world_size: int) -> None:
    config = DataConfig(input_dir=(str(corpus),), global_batch_size=25, **ROWS)
    epoch = updates(config, 4, world_size)
    assert {rank.epoch for update in epoch for rank in update} == {0}
    found = [sequence.originals for sequence in all_sequences([b for update in epoch for b in batches_of(update)])]
    rows = make_rows(100, 32, seed=1)
    wanted = [tuple(rows.input_ids[row, : rows.lengths[row]].tolist()) for row in range(100)]
    assert sorted(found) == sorted(wanted)


def test_rows_that_a_budget_has_room_for(corpus: Path) -> None:
    values = {**ROWS, "max_tokens": 5 * 32 + 31, "input_dir": (str(corpus),), "global_batch_size": 30}
    values.pop("local_batch_size")
    (update,) = updates(DataConfig(**values), 1)
    assert {batch.input_ids.shape for batch in batches_of(update)} == {(5 * 32,)}
    with pytest.raises(ConfigError, match="--max_tokens"):
        loader(DataConfig(**{**values, "max_tokens": 31}))


def test_static_masks_and_single_segments(tmp_path: Path) -> None:
    rows = make_rows(100, 32, pairs=False, slots=4, seed=2)
    config = DataConfig(input_dir=(str(write_set(tmp_path, rows)),), global_batch_size=21, masked_token_fraction=0.5)
    packed = updates(config, 5, pairs=False)
    fixed = updates(config.model_copy(update=ROWS), 5, 2, pairs=False)
    for found, wanted in zip(fixed, packed, strict=True):
        assert all_sequences(batches_of(found)) == all_sequences(batches_of(wanted))
    assert len({shapes(batch) for update in fixed for batch in batches_of(update)}) == 1


def test_masks_of_shards_beyond_a_rows_places_are_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = make_rows(100, 32, pairs=False, slots=8, seed=2)
    config = DataConfig(input_dir=(str(write_set(tmp_path, rows)),), global_batch_size=21, masked_token_fraction=0.01)
    found = updates(config.model_copy(update=ROWS), 4, pairs=False)
    places = batches_of(found[0])[0].labels.shape[0] // 3
    for batch in batches_of([each for update in found for each in update]):
        used = batch.masked_positions[batch.labels != -100] // 32
        assert np.bincount(used, minlength=1).max() <= places
    wanted = all_sequences(batches_of([each for update in updates(config, 4, pairs=False) for each in update]))
    kept = all_sequences(batches_of([each for update in found for each in update]))
    assert sorted(sequence.originals for sequence in kept) == sorted(sequence.originals for sequence in wanted)
    (told,) = [record.getMessage() for record in caplog.records if "--packing rows" in record.getMessage()]
    assert "--masked_token_fraction" in told


def test_words_longer_than_a_rows_places_end_no_run_and_depend_on_nothing_but_the_row(corpus: Path) -> None:
    one_word = Vocabulary((*SPECIAL_TOKENS, *(f"##w{index}" for index in range(95))), lowercase=True)
    config = DataConfig(input_dir=(str(corpus),), global_batch_size=37, whole_word_masking=True, **ROWS)
    policy, found = policy_for(config, one_word), []
    for world_size, local_batch_size in ((1, 3), (2, 3), (3, 2)):
        data = config.model_copy(update={"local_batch_size": local_batch_size})
        batches = BatchMaker(opened(data), one_word, policy, next_sentence=True)
        loaders = [TrainingLoader(batches, data, rank=rank, world_size=world_size) for rank in range(world_size)]
        made = [batch for number in range(3) for each in loaders for batch in each.update_at(37 * number).micro_batches]
        assert len({shapes(batch) for batch in made}) == 1
        found.append(all_sequences(made))
    assert found[0] == found[1] == found[2]
    masked = [len(sequence.masked) for sequence in found[0]]
    assert max(masked) > 0.15 * 32 + 1  # a whole word, more than its share
    assert min(masked) == 0  # and others for which no place was left


def test_corpora_of_different_lengths_lie_in_rows_of_the_longer(corpus: Path, tmp_path: Path) -> None:
    other = write_set(tmp_path, make_rows(100, 20, seed=3))
    mixture: dict[str, Any] = {"input_dir": (str(corpus), str(other)), "mixture_weights": (1.0, 2.0), "seed": 5}
    curriculum: dict[str, Any] = {"length_curriculum_updates": 4, "length_curriculum_start": 16}
    for more in ({}, curriculum):
        packed = updates(DataConfig(**mixture, **more, global_batch_size=40), 6)
        fixed = updates(DataConfig(**mixture, **more, **ROWS, global_batch_size=40), 6, 2)
        assert len({shapes(batch) for update in fixed for batch in batches_of(update)}) == 1
        for found, wanted in zip(fixed, packed, strict=True):
            assert all_sequences(batches_of(found)) == all_sequences(batches_of(wanted))


def test_shards_left_out_change_no_shape(corpus: Path) -> None:
    config = DataConfig(input_dir=(str(corpus),), global_batch_size=50, num_workers=0)
    packed, fixed = loader(config), loader(config.model_copy(update=ROWS))
    whole = fixed.update_at(0)
    for each in (packed, fixed):
        each.exclude(["0:train_0.hdf5"])
    found = fixed.update_at(0)
    assert all_sequences(found.micro_batches) == all_sequences(packed.update_at(0).micro_batches)
    assert len(all_sequences(found.micro_batches)) < len(all_sequences(whole.micro_batches))
    assert found.num_sequences == whole.num_sequences  # of the stream: positions keep their meaning
    fixed = loader(config.model_copy(update={**ROWS, "global_batch_size": 1}))
    fixed.exclude(["0:train_0.hdf5"])
    singles = [fixed.update_at(position) for position in range(20)]
    assert min(single.num_tokens for single in singles) == 0  # all of an update may be left out
    found.micro_batches.extend(batch for single in singles for batch in single.micro_batches)
    assert {len(single.micro_batches) for single in singles} == {1}
    assert {shapes(batch) for batch in found.micro_batches} == {shapes(batch) for batch in whole.micro_batches}


def test_sorting_by_length_does_not_go_with_rows() -> None:
    with pytest.raises(ConfigError, match=r"--packing rows .*--length_group_updates 2"):
        DataConfig(packing="rows", length_group_updates=2).checked("command line")
    DataConfig(packing="tokens", length_group_updates=2).checked("command line")
