"""E5: a run killed with SIGKILL at any moment and started again ends with the very bits of one never stopped."""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import assert_same_state, checkpoint, metrics, pretraining_command, run_program, started

UPDATES = 40
KILLS = 5


@pytest.mark.slow
def test_a_run_killed_at_random_instants_ends_with_the_same_bits(
    shards64: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags: dict[str, Any] = {
        "input_dir": shards64,
        "model_config_file": tiny_model,
        "learning_rate": 5e-3,
        "global_batch_size": 12,
        "local_batch_size": 6,
        "max_steps": UPDATES,
        "num_steps_per_checkpoint": 2,
        "max_predictions_per_seq": 10,
        "eval_interval": 20,
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    begun = time.monotonic()
    reference = run_program(pretraining_command(**flags, output_dir=whole))
    assert reference.code == 0, reference.err
    lifetime = time.monotonic() - begun

    seed = int(os.environ.get("BERT_PYTORCH_KILL_SEED", time.time_ns() % 2**32))
    instants = [random.Random(seed + index).uniform(0, lifetime) for index in range(KILLS)]
    with capsys.disabled():
        print(
            f"\nkill seed {seed}, instants {', '.join(f'{instant:.2f} s' for instant in instants)} of {lifetime:.2f} s"
        )
    for instant in instants:
        with started(pretraining_command(**flags, output_dir=killed), tmp_path / "log") as process:
            time.sleep(instant)
            process.kill()
    last = run_program(pretraining_command(**flags, output_dir=killed))
    assert last.code == 0, last.err
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, UPDATES)[part], checkpoint(killed, UPDATES)[part], part)
    # No row of metrics is lost or doubled, and every one is the same.
    steps = [row["step"] for row in metrics(killed, "train")]
    assert steps == list(range(1, UPDATES + 1))
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, killed)]
    assert losses[0] == losses[1]
