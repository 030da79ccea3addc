"""What a run trains on: the same whatever resumes, shares or prefetches it, and rebuilt afterwards for any update."""

import itertools
import re
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
from bert_pytorch.errors import InputError
from bert_pytorch.inspect.__main__ import main as inspect
from bert_pytorch.inspect.batch import BatchConfig, open_run_data, rebuilt, split
from bert_pytorch.inspect.run_records import find_update
from bert_pytorch.pretraining import assembly
from bert_pytorch.shards.shard_set import ShardSet
from bert_pytorch.training.step import OptimizerStep
from tests.support.runs import metrics, pretrain_here, run_program, torchrun


def loader_of(folders: tuple[Path, ...], rank: int, world_size: int, workers: int, **mode: Any) -> TrainingLoader:
    batch = {} if "global_batch_tokens" in mode else {"global_batch_size": 23}
    local = {} if "max_tokens" in mode else {"local_batch_size": 5}
    config = DataConfig.model_validate(
        {"input_dir": [str(f) for f in folders], "num_workers": workers, "seed": 3, **batch, **local, **mode}
    )
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    assert corpora.vocabulary is not None
    maker = BatchMaker(corpora, corpora.vocabulary, policy_for(config, corpora.vocabulary), next_sentence=True)
    return TrainingLoader(maker, config, rank=rank, world_size=world_size)


def content(updates: list[Update]) -> list[tuple[object, ...]]:
    """Return the sequences of an update with their masks, over all ranks, in an order of their own."""
    return sorted(
        (tuple(s.input_ids.tolist()), tuple(s.originals.tolist()), tuple(np.flatnonzero(s.masked).tolist()),
         s.segment_b_start, s.next_sentence_label)
        for update in updates for batch in update.micro_batches if batch.num_masked for s in split(batch)
    )  # fmt: skip


def rebuilt_by(run: Path, step: int) -> Update:
    """Rebuild an update as `inspect batch` does."""
    recorded = find_update(run, step)
    return rebuilt(open_run_data(recorded, BatchConfig(runs=(run,), step=step))[0], recorded)


def test_a_mixture_resumes_and_holds_sequences_of_both_corpora(shards64: Path, shards128: Path) -> None:
    def loader(rank: int = 0, world_size: int = 1) -> TrainingLoader:
        return loader_of((shards64, shards128), rank, world_size, 0, mixture_weights=(1, 3), shuffle_window=1)

    wanted = [loader().update_at(23 * number) for number in range(40)]
    found = [loader(rank, 2).update_at(23 * 17, 17) for rank in range(2)]
    assert content(found) == content([wanted[17]])
    lengths = [len(s.input_ids) for u in wanted for batch in u.micro_batches for s in split(batch)]
    assert 0.5 < np.mean(np.array(lengths) > 64) < 0.9


@pytest.fixture
def basics(shards64: Path, tiny_model: Path) -> dict[str, Any]:
    return {
        "input_dir": shards64, "model_config_file": tiny_model, "learning_rate": 5e-3, "global_batch_size": 12,
        "local_batch_size": 5, "num_steps_per_checkpoint": 3, "seed": 11, "num_workers": 1,
    }  # fmt: skip


def test_any_update_of_a_run_is_rebuilt_and_shown(
    basics: dict[str, Any], shards128: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, seen = tmp_path / "run", {}
    take = OptimizerStep.__call__

    def spied(self: OptimizerStep, update: Update, *, step: int, learning_rate: float) -> Any:
        seen[step] = update
        return take(self, update, step=step, learning_rate=learning_rate)

    with mock.patch.object(OptimizerStep, "__call__", spied):
        assert pretrain_here(**basics, output_dir=run, max_steps=8, steps=4, log_interval=3).code == 0
        assert (
            pretrain_here(**{**basics, "global_batch_size": 7}, output_dir=run, max_steps=8, log_interval=3).code == 0
        )
        phase2 = {**basics, "input_dir": shards128, "length_curriculum_updates": 3, "length_curriculum_start": 40}
        assert pretrain_here(**phase2, output_dir=run, max_steps=4, previous_phase_end_step=8).code == 0
    for step in (1, 3, 4, 5, 7, 8, 9, 12):
        update = rebuilt_by(run, step)
        assert update[1:] == seen[step][1:]
        for ours, theirs in zip(update.micro_batches, seen[step].micro_batches, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert np.array_equal(one, other)  # type: ignore[arg-type]
    capsys.readouterr()
    assert inspect(["batch", str(run), "--step", "7", "--num_samples", "2"]) == 0
    shown = capsys.readouterr().out
    assert "samples        62 to 68 of the phase, epoch 0" in shown
    assert "[CLS]" in shown
    digests = []
    for ranks in (1, 3):
        assert inspect(["batch", str(run), "--step", "7", "--world_size", str(ranks), "--num_samples", "0"]) == 0
        digests.append(re.findall(r"digest +([0-9a-f]{64})", capsys.readouterr().out))
    assert digests[0] == digests[1] != []
    assert inspect(["batch", str(run), "--step", "13"]) == 1
    assert "update 13 was not reached, its last one is 12" in capsys.readouterr().err
    assert inspect(["batch", str(run), "--step", "2", "--rank", "1"]) == 2
    assert "wanted 0 to 0" in capsys.readouterr().err


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_damaged_shard_met_on_the_way_stops_or_is_left_out_on_all_ranks(
    policy: str, basics: dict[str, Any], shards64: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "set"
    damaged.mkdir()
    for path in shards64.iterdir():
        if path.name != "manifest.json":
            (damaged / path.name).write_bytes(path.read_bytes())
    source = sorted(damaged.glob("train_*.hdf5"))[0]
    (damaged / "train_1000.hdf5").write_bytes(source.read_bytes())
    with h5py.File(damaged / "train_1000.hdf5", "r+") as file:
        file["input_ids"][:, 3] = 10**6
    run = tmp_path / "run"
    flags = {**basics, "input_dir": damaged, "max_steps": 5, "on_bad_shard": policy, "output_dir": run}
    said = run_program(torchrun(2, **flags), timeout=60)  # no rank waits for one that has ended
    if policy == "stop":
        assert said.code == 1
        assert re.search(r"train_1000.hdf5: row \d+: input_ids: found token id 1000000", said.err)
        return
    assert said.code == 0, said.err
    assert [row["step"] for row in metrics(run, "train")] == [1, 2, 3, 4, 5]
    assert "left out from update" in (run / "logfile.txt").read_text() + said.err
    again = pretrain_here(**{**flags, "max_steps": 6})
    assert again.code == 0, again.err
    (start,) = [row for row in metrics(run, "start") if row["step"] == 5]
    assert start["excluded_shards"] == ["0:train_1000.hdf5"]
    (left_out,) = metrics(run, "exclude")
    assert re.search(r"train_1000.hdf5: row \d+: input_ids: found token id 1000000", left_out["reason"])


def test_a_workers_failure_is_told_with_its_reason(shards64: Path) -> None:
    loader = loader_of((shards64,), 0, 1, 2)
    stream = loader.stream(0)
    next(stream)
    failing = mock.patch.object(BatchMaker, "make", side_effect=MemoryError("no room"))
    with failing, pytest.raises(MemoryError, match="no room"):
        list(itertools.islice(stream, 8))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")] == []


def test_whatever_ends_a_session_its_training_and_held_out_data_are_closed(
    basics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Path] = []
    close = ShardSet.close

    def recorded(self: ShardSet) -> None:
        closed.extend(path.parent / path.name.split("_")[0] for path in self.paths)
        close(self)

    def failing(*_arguments: object, **_options: object) -> None:
        raise InputError("a held-out shard cannot be had")

    monkeypatch.setattr(ShardSet, "close", recorded)
    monkeypatch.setattr(assembly, "evaluate", failing)
    flags = {**basics, "output_dir": tmp_path / "run", "max_steps": 2}
    assert pretrain_here(**flags).code == 1
    assert {path.name for path in closed} == {"train", "eval"}
    run = tmp_path / "trained"
    monkeypatch.undo()
    assert pretrain_here(**{**flags, "output_dir": run}).code == 0
    monkeypatch.setattr(ShardSet, "close", recorded)
    closed.clear()
    assert pretrain_here(init_checkpoint=run, eval_dir=basics["input_dir"], max_steps=0).code == 0
    assert {path.name for path in closed} == {"eval"}
