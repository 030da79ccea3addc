"""Real runs stopped and resumed on other ranks, with damaged shards or skipped updates: the data that was recorded."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest
import torch

from bert_pytorch.data.loader import Update
from bert_pytorch.inspect.__main__ import main as inspect
from bert_pytorch.inspect.batch import BatchConfig, digest, open_run_data, rebuilt
from bert_pytorch.inspect.run_records import find_update
from bert_pytorch.training.step import OptimizerStep
from tests.support.runs import (
    metrics,
    pretrain_here,
    pretraining_command,
    run_program,
    started_ranks,
    torchrun,
    wait_until,
)


@pytest.fixture
def flags(shards64: Path, still_model: Path) -> dict[str, Any]:
    """Return what every run here is given: a model without dropout, whose losses do not depend on the ranks."""
    return {
        "input_dir": shards64, "model_config_file": still_model, "learning_rate": 2e-3, "global_batch_size": 12,
        "local_batch_size": 4, "max_steps": 8, "num_steps_per_checkpoint": 2, "num_workers": 1,
    }  # fmt: skip


@pytest.fixture
def seen() -> Iterator[dict[int, Update]]:
    """Keep every update that a run in this process takes; of one that is repeated the last."""
    updates: dict[int, Update] = {}
    take = OptimizerStep.__call__

    def spied(self: OptimizerStep, update: Update, *, step: int, learning_rate: float) -> Any:
        updates[step] = update
        return take(self, update, step=step, learning_rate=learning_rate)

    with mock.patch.object(OptimizerStep, "__call__", spied):
        yield updates


def rebuilt_by(run: Path, step: int) -> Update:
    recorded = find_update(run, step)
    return rebuilt(open_run_data(recorded, BatchConfig(runs=(run,), step=step))[0], recorded)


def assert_rebuilt(run: Path, seen: dict[int, Update], last: int) -> None:
    """Compare every update of a run with what it was really made of."""
    assert sorted(seen) == list(range(1, last + 1))
    for step, theirs in seen.items():
        ours = rebuilt_by(run, step)
        assert ours[1:] == theirs[1:], step
        for one, other in zip(ours.micro_batches, theirs.micro_batches, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), step  # type: ignore[arg-type]


def assert_same_course(run: Path, whole: Path, steps: int) -> None:
    """Compare samples, masks and losses of two runs, update by update; losses as E4 wants them."""
    ours, theirs = metrics(run, "train"), metrics(whole, "train")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, steps + 1))
    assert [row["samples"] for row in ours] == [row["samples"] for row in theirs]
    for step in range(1, steps + 1):
        assert digest(rebuilt_by(run, step)) == digest(rebuilt_by(whole, step)), step
    for key in ("mlm_loss", "nsp_loss"):
        assert [row[key] for row in ours] == pytest.approx([row[key] for row in theirs], rel=1e-6)


def checkpoints_of(run: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt_")) for path in (run / "pretrain_ckpts").glob("ckpt_*.pt"))


def test_two_ranks_killed_and_resumed_by_one(flags: dict[str, Any], tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags |= {"length_group_updates": 3, "max_steps": 300}
    with started_ranks([pretraining_command(**flags, output_dir=run)] * 2, tmp_path / "log") as both:
        wait_until(lambda: len(metrics(run, "train")) >= 5 or both[0].poll() is not None, 120, "five updates")
        for process in both:  # as torchrun's workers, and none is left to say goodbye
            process.kill()
    done = metrics(run, "train")[-1]["step"]
    last = done + 3
    saved = checkpoints_of(run)[-1]
    for folder, workers, steps in ((run, 3, last - saved), (whole, 0, last)):
        outcome = pretrain_here(**{**flags, "num_workers": workers, "steps": steps}, output_dir=folder)
        assert outcome.code == 0, outcome.err
    assert [(row["step"], row["world_size"]) for row in metrics(run, "start")] == [(0, 2), (saved, 1)]
    assert_same_course(run, whole, last)


def test_one_rank_goes_on_as_two_with_a_budget_of_tokens(flags: dict[str, Any], tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags |= {"global_batch_size": None, "global_batch_tokens": 500, "local_batch_size": None, "max_tokens": 128}
    assert pretrain_here(**flags, output_dir=whole).code == 0
    assert pretrain_here(**{**flags, "num_workers": 4}, output_dir=run, steps=3).code == 0
    resumed = run_program(torchrun(2, **{**flags, "num_workers": 0}, output_dir=run), timeout=60)
    assert resumed.code == 0, resumed.err
    assert [(row["step"], row["world_size"]) for row in metrics(run, "start")] == [(0, 1), (3, 2)]
    assert_same_course(run, whole, 8)


def test_updates_around_one_that_was_skipped_are_rebuilt(
    flags: dict[str, Any], seen: dict[int, Update], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = iter([1.0, float("inf"), float("inf"), *[1.0] * 20])  # as fp16's overflows are met
    monkeypatch.setattr("bert_pytorch.training.step.global_norm", lambda _: torch.tensor(next(norms)).double())
    assert pretrain_here(**{**flags, "max_steps": 7}, output_dir=tmp_path / "run", log_interval=4).code == 0
    assert [row["step"] for row in metrics(tmp_path / "run", "train")] == [1, 2, 4, 7]
    assert seen[2].start_position == 12 * 3
    assert_rebuilt(tmp_path / "run", seen, 7)


@pytest.fixture
def damaged(shards64: Path, tmp_path: Path) -> Path:
    """Copy the set and add a shard, unknown to any manifest, of which a late row has an id that no vocabulary has."""
    folder = tmp_path / "set"
    shutil.copytree(shards64, folder, ignore=shutil.ignore_patterns("manifest.json"))
    shutil.copy(sorted(folder.glob("train_*.hdf5"))[0], folder / "train_1000.hdf5")
    with h5py.File(folder / "train_1000.hdf5", "r+") as file:
        file["input_ids"][len(file["input_ids"]) // 2, 3] = 10**6
    return folder


@pytest.mark.parametrize("grouped", [0, 4])
def test_updates_before_and_after_a_shard_was_left_out_are_rebuilt(
    grouped: int, flags: dict[str, Any], damaged: Path, seen: dict[int, Update], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags |= {"input_dir": damaged, "on_bad_shard": "skip", "log_interval": 5, "length_group_updates": grouped}
    flags |= {"global_batch_size": 40, "local_batch_size": 20, "max_steps": 18, "num_steps_per_checkpoint": 100}
    outcome = pretrain_here(**flags, output_dir=run, steps=13)
    assert outcome.code == 0, outcome.err
    (row,) = metrics(run, "exclude")
    assert 1 < row["step"] <= 13
    said = [line for line in (run / "logfile.txt").read_text().splitlines() if "left out" in line]
    assert len(said) == 1
    assert (
        f"left out from update {row['step']} on: 0:train_1000.hdf5 with its {row['sequences']:,} sequences." in said[0]
    )
    assert re.search(r"train_1000.hdf5: row \d+: .*1000000", said[0])
    again = pretrain_here(**flags, output_dir=run)
    assert again.code == 0, again.err
    assert "left out: 0:train_1000.hdf5 " in (run / "logfile.txt").read_text()
    assert metrics(run, "start")[-1]["excluded_shards"] == ["0:train_1000.hdf5"]
    assert len(metrics(run, "exclude")) == 1
    assert_rebuilt(run, seen, 18)


def test_a_mended_shard_is_read_again_with_stop(flags: dict[str, Any], damaged: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with h5py.File(damaged / "train_1000.hdf5", "r+") as file:
        file["input_ids"][:, 3] = 10**6
    flags |= {"input_dir": damaged, "max_steps": 5}
    assert pretrain_here(**flags, output_dir=run, on_bad_shard="skip", steps=3).code == 0
    assert len(metrics(run, "exclude")) == 1
    shutil.copy(sorted(damaged.glob("train_*.hdf5"))[0], damaged / "train_1000.hdf5")
    assert pretrain_here(**flags, output_dir=run, on_bad_shard="stop").code == 0
    assert metrics(run, "start")[-1]["excluded_shards"] == []


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_damaged_held_out_shard_is_met_before_training(
    policy: str, flags: dict[str, Any], shards64: Path, tmp_path: Path
) -> None:
    folder, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(shards64, folder, ignore=shutil.ignore_patterns("manifest.json"))
    shutil.copy(folder / "eval_0.hdf5", folder / "eval_1.hdf5")
    with h5py.File(folder / "eval_1.hdf5", "r+") as file:
        file["input_ids"][2, 1] = -7
    good, bad = tmp_path / "good", {**flags, "input_dir": folder, "max_steps": 2, "on_bad_shard": policy}
    if policy == "stop":
        outcome = pretrain_here(**bad, output_dir=run)
        assert outcome.code == 1
        assert outcome.err.count("eval_1.hdf5: row 2: ") == 1
        assert metrics(run, "train") == []
        return
    outcome = run_program(torchrun(2, **bad, output_dir=run), timeout=60)
    assert outcome.code == 0, outcome.err
    assert "left out of the held-out data: 0:eval_1.hdf5" in (run / "logfile.txt").read_text()
    assert pretrain_here(**{**flags, "max_steps": 2}, output_dir=good).code == 0
    for ours, theirs in zip(metrics(run, "eval"), metrics(good, "eval"), strict=True):
        assert ours["masked_tokens"] == theirs["masked_tokens"]
        assert ours["mlm_loss"] == pytest.approx(theirs["mlm_loss"], rel=1e-6)


def test_data_that_were_moved_or_exchanged(
    flags: dict[str, Any], shards64: Path, shards128: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, here, there = tmp_path / "run", tmp_path / "here", tmp_path / "there"
    shutil.copytree(shards64, here)
    assert pretrain_here(**{**flags, "input_dir": here, "max_steps": 2}, output_dir=run).code == 0
    wanted = digest(rebuilt_by(run, 2))
    here.rename(there)
    capsys.readouterr()
    show = ["batch", str(run), "--step", "2", "--num_samples", "1"]
    assert inspect(show) == 1
    assert re.search(r"here: there is no such .* If the run's data were moved", capsys.readouterr().err)
    assert inspect([*show, "--input_dir", str(there)]) == 0
    assert wanted in capsys.readouterr().out
    assert inspect([*show, "--input_dir", str(shards128)]) == 1
    assert "these are other data" in capsys.readouterr().err
    assert inspect([*show, "--input_dir", str(there), str(here)]) == 2
    assert "--input_dir: found 2, wanted 1" in capsys.readouterr().err
