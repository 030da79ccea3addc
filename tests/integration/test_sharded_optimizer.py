"""Runs with --shard_optimizer on two ranks: stopped, continued, carried to one rank and back, and what is foretold."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.finetuning import classifier_command, classify_here, sentiment, small_encoder
from tests.support.runs import (
    assert_same_state,
    checkpoint,
    metrics,
    pretrain_here,
    pretraining_command,
    run_program,
    run_ranks,
    started_ranks,
    wait_until,
)

UPDATES = 12


@pytest.fixture
def flags(shards64: Path, still_model: Path) -> dict[str, Any]:
    """Return a run of two micro-batches a rank, by a model without dropout, whose losses do not depend on the ranks."""
    return {
        "input_dir": shards64, "model_config_file": still_model, "learning_rate": 2e-3, "warmup_proportion": 0.2,
        "global_batch_size": 12, "local_batch_size": 3, "max_steps": UPDATES, "max_predictions_per_seq": 10,
        "num_steps_per_checkpoint": 2, "keep_checkpoints": 9,
    }  # fmt: skip


def assert_same_bits(run: Path, whole: Path) -> None:
    """Compare what two runs ended with, and every update on the way."""
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(run, UPDATES)[part], checkpoint(whole, UPDATES)[part], part)
    losses = [[(row["step"], row["loss"], row["grad_norm"]) for row in metrics(each, "train")] for each in (run, whole)]
    assert losses[0] == losses[1]


def test_a_run_goes_on_with_the_same_bits_after_a_kill_and_on_other_ranks_with_the_same_losses(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    whole, killed, alone = tmp_path / "whole", tmp_path / "killed", tmp_path / "alone"
    run_ranks([pretraining_command(**flags, output_dir=whole)] * 2, tmp_path / "log")
    sharded = pretraining_command(**flags, shard_optimizer=True, output_dir=killed)
    checkpoints = killed / "pretrain_ckpts"
    with started_ranks([sharded] * 2, tmp_path / "killed.log"):  # both are killed on leaving
        wait_until((checkpoints / "ckpt_2.pt").exists, 120, "a checkpoint")
    assert not (checkpoints / f"ckpt_{UPDATES}.pt").exists()
    shutil.copytree(killed, alone)
    run_ranks([sharded] * 2, tmp_path / "log")
    assert_same_bits(killed, whole)
    outcome = pretrain_here(**flags, output_dir=alone)  # one rank, and no sharding
    assert outcome.code == 0, outcome.err
    assert "shard_optimizer: True → False" in outcome.out
    _assert_same_losses(alone, whole)


def test_a_run_begun_on_one_rank_goes_on_sharded_over_two(flags: dict[str, Any], tmp_path: Path) -> None:
    flags |= {"optimizer": "adamw"}
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert pretrain_here(**flags, output_dir=whole).code == 0
    assert pretrain_here(**flags, output_dir=run, steps=3).code == 0
    run_ranks([pretraining_command(**flags, shard_optimizer=True, output_dir=run)] * 2, tmp_path / "log")
    _assert_same_losses(run, whole)
    states = [checkpoint(each, UPDATES)["optimizer"] for each in (run, whole)]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    assert states[0]["param_groups"] == states[1]["param_groups"]


def _assert_same_losses(run: Path, whole: Path) -> None:
    rows = [metrics(each, "train") for each in (run, whole)]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]] == list(range(1, UPDATES + 1))
    assert [row["samples"] for row in rows[0]] == [row["samples"] for row in rows[1]]
    # Sums of float32 in another order differ in the last bit, as in test_large_batch_equality.
    assert [row["loss"] for row in rows[0]] == pytest.approx([row["loss"] for row in rows[1]], rel=1e-6)


def test_fine_tuning_shards_as_well_and_ends_alike(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path / "encoder")
    flags: dict[str, Any] = {
        "init_checkpoint": encoder, "do_train": True, "train_file": sentiment(tmp_path / "train.csv", 48),
        "train_batch_size": 16, "max_seq_length": 24, "learning_rate": 2e-3, "num_train_epochs": 2,
        "hidden_dropout": 0.0, "layer_decay": 0.8,
    }  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert classify_here(**flags, output_dir=whole).code == 0
    command = [sys.executable, *classifier_command(**flags, shard_optimizer=True, output_dir=run, steps=3)]
    run_ranks([command] * 2, tmp_path / "log")
    outcome = classify_here(**flags, output_dir=run)
    assert outcome.code == 0, outcome.err
    losses = [[row["loss"] for row in metrics(each, "train")] for each in (whole, run)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-5)
    assert len(losses[1]) == 6


def test_a_dry_run_foretells_what_a_rank_keeps(flags: dict[str, Any], tmp_path: Path) -> None:
    large = {**flags, "model_config_file": "bert_large_uncased", "output_dir": tmp_path / "run", "dry_run": True}
    plain = pretrain_here(**large)
    assert "optimizer state" not in plain.out.split("memory, length 64")[0]
    assert "optimizer state 2.51" in plain.out
    outcome = run_program(
        pretraining_command(**large, shard_optimizer=True),
        WORLD_SIZE="8", RANK="0", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="1",
    )  # fmt: skip
    assert "0.31 GiB on the rank that keeps most, of 2.51 GiB in all" in outcome.out, outcome.err
    assert "optimizer state 0.31" in outcome.out
