"""E6 as a pure function: any workers, any ranks, begun at any update, give each update the samples and masks of one."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.inspect.batch import split
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import WORDS, make_rows

MODES: dict[str, dict[str, Any]] = {
    "count": {},
    "max_tokens": {"max_tokens": 64},
    "token budget": {"global_batch_tokens": 160, "max_tokens": 48},
    "token budget by count": {"global_batch_tokens": 160},
    "grouped within an update": {"length_group_updates": 1},
    "grouped updates": {"length_group_updates": 3},
    "ramp": {"batch_ramp_updates": 6, "batch_ramp_start": 2},
    "curriculum": {"length_curriculum_updates": 5, "length_curriculum_start": 8},
    "window": {"shuffle_window": 2},
    "mixture": {"mixture_weights": (1.0, 3.0)},
    "mixture of windows, grouped": {"mixture_weights": (2.0, 1.0), "shuffle_window": 2, "length_group_updates": 3},
    "rows": {"packing": "rows"},
    "rows by tokens, ramp": {
        "packing": "rows", "max_tokens": 48, "global_batch_tokens": 160, "batch_ramp_updates": 6, "batch_ramp_start": 40
    },
}  # fmt: skip
UPDATES = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two corpora of six shards, 90 and 66 sequences of 16 tokens: an epoch is a few updates."""
    made = []
    for corpus, size in enumerate((15, 11)):
        folder = tmp_path_factory.mktemp(f"corpus{corpus}")
        (folder / "vocab.txt").write_text("\n".join(WORDS.tokens) + "\n")
        for number in range(6):
            write_shard(folder / f"train_{number}.hdf5", make_rows(size, seed=10 * corpus + number), {})
        made.append(folder)
    return made[0], made[1]


def loader_of(folders: tuple[Path, Path], workers: int, rank: int, world_size: int, **mode: Any) -> TrainingLoader:
    used = folders if "mixture_weights" in mode else folders[:1]
    batch = {} if "global_batch_tokens" in mode else {"global_batch_size": 13}
    local = {} if "max_tokens" in mode else {"local_batch_size": 3}
    values = {"input_dir": [str(each) for each in used], "num_workers": workers, "seed": 9, **batch, **local, **mode}
    config = DataConfig.model_validate(values).checked("test")
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    batches = BatchMaker(corpora, WORDS, policy_for(config, WORDS), next_sentence=True)
    return TrainingLoader(batches, config, rank=rank, world_size=world_size)


def content(updates: list[Update]) -> list[tuple[object, ...]]:
    """Return the sequences of an update with their masks over all ranks, in an order that is none of the loader's."""
    return sorted(
        (s.input_ids.tolist(), s.originals.tolist(), np.flatnonzero(s.masked).tolist(), s.segment_b_start,
         s.next_sentence_label)
        for update in updates for batch in update.micro_batches if batch.num_masked for s in split(batch)
    )  # fmt: skip


def drawn(loaders: list[TrainingLoader], position: int, number: int) -> list[tuple[int, int]]:
    """Return epoch and index of every sample of an update over all ranks."""
    plans = [loader.plan(position, number) for loader in loaders]
    return sorted(
        pair
        for plan in plans for part in plan.micro_batches
        for pair in zip(part.epochs.tolist(), part.indices.tolist(), strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_every_world_and_number_of_workers_draws_the_updates_of_one(mode: str, folders: tuple[Path, Path]) -> None:
    alone = loader_of(folders, 0, 0, 1, **MODES[mode])
    wanted = list(itertools.islice(alone.stream(0), UPDATES))
    assert wanted[-1].end_position > alone.corpora.num_sequences  # an epoch has ended on the way
    samples = [drawn([alone], update.start_position, number) for number, update in enumerate(wanted)]
    every = [sample for update in samples for sample in update]
    assert len(set(every)) == len(every)  # none twice in an epoch
    contents = [content([update]) for update in wanted]
    begun = itertools.cycle((1, 5, 10))
    for workers, world_size in itertools.product((0, 1, 4), (1, 2, 4)):
        first = next(begun)
        loaders = [loader_of(folders, workers, rank, world_size, **MODES[mode]) for rank in range(world_size)]
        streams = [loader.stream(wanted[first].start_position, first) for loader in loaders]
        for number in range(first, first + 5):
            found = [next(stream) for stream in streams]
            ends = {(update.start_position, update.end_position, update.epoch) for update in found}
            assert ends == {(wanted[number].start_position, wanted[number].end_position, wanted[number].epoch)}
            assert len({len(update.micro_batches) for update in found}) == 1
            assert drawn(loaders, wanted[number].start_position, number) == samples[number]
            assert content(found) == contents[number]
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", ["6,2", "0,5,3"])
def test_ranks_of_any_sizes_draw_the_updates_of_one(mode: str, sizes: str, folders: tuple[Path, Path]) -> None:
    alone = loader_of(folders, 0, 0, 1, **MODES[mode])
    wanted = list(itertools.islice(alone.stream(0), UPDATES))
    world_size = sizes.count(",") + 1
    budgets = {"max_tokens": 1000} if "max_tokens" in MODES[mode] else {}  # a sequence fits into each part of it
    uneven = {**MODES[mode], **budgets, "local_batch_sizes": sizes}
    loaders = [loader_of(folders, 0, rank, world_size, **uneven) for rank in range(world_size)]
    for number, update in enumerate(wanted):
        found = [loader.update_at(update.start_position, number) for loader in loaders]
        assert {(each.epoch, each.start_position, each.end_position) for each in found} == {update[1:]}
        assert len({len(each.micro_batches) for each in found}) == 1
        assert drawn(loaders, update.start_position, number) == drawn([alone], update.start_position, number)
        assert content(found) == content([update])
        for rank, each in enumerate(found):
            if sizes.split(",")[rank] == "0":
                assert each.num_tokens == each.num_masked == each.num_pairs == 0


@pytest.mark.parametrize("mode", MODES)
def test_begun_at_any_update_one_rank_goes_on_exactly(mode: str, folders: tuple[Path, Path]) -> None:
    wanted = list(itertools.islice(loader_of(folders, 0, 1, 2, **MODES[mode]).stream(0), UPDATES))
    for number, update in enumerate(wanted):
        again = loader_of(folders, 0, 1, 2, **MODES[mode]).update_at(update.start_position, number)
        assert again[1:] == update[1:]
        for ours, theirs in zip(again.micro_batches, update.micro_batches, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))  # type: ignore[arg-type]
