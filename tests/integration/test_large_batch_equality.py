"""E4: A micro-batches on W ranks train like one large batch, and the data does not depend on how it is shared.

Sums of float32 in another order differ in the last bit; 20 updates of a contracting loss keep that below 1e-6.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import REPOSITORY, metrics, pretrain_here, run_program, words


@pytest.fixture
def flags(shards64: Path, still_model: Path) -> dict[str, Any]:
    return {
        "input_dir": shards64,
        "model_config_file": still_model,
        "learning_rate": 2e-3,
        "warmup_proportion": 0.2,
        "global_batch_size": 24,
        "max_steps": 20,
        "max_predictions_per_seq": 10,
        "skip_checkpoint": True,
    }


def test_accumulation_and_two_gloo_ranks_equal_the_whole_batch_for_20_updates(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    whole, accumulated, ranks = tmp_path / "whole", tmp_path / "accumulated", tmp_path / "ranks"
    assert pretrain_here(**flags, local_batch_size=24, output_dir=whole).code == 0
    assert pretrain_here(**flags, local_batch_size=7, output_dir=accumulated).code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(REPOSITORY / "run_pretraining.py")]
    outcome = run_program([*command, *words({**flags, "local_batch_size": 5, "output_dir": ranks})])
    assert outcome.code == 0, outcome.err
    reference = metrics(whole, "train")
    for run in (accumulated, ranks):
        rows = metrics(run, "train")
        assert [row["step"] for row in rows] == list(range(1, 21))
        for key in ("loss", "mlm_loss", "nsp_loss"):
            assert [row[key] for row in rows] == pytest.approx([row[key] for row in reference], rel=1e-6), key
        for rows_eval, reference_eval in zip(metrics(run, "eval"), metrics(whole, "eval"), strict=True):
            assert rows_eval["mlm_loss"] == pytest.approx(reference_eval["mlm_loss"], rel=1e-6)
            assert rows_eval["masked_tokens"] == reference_eval["masked_tokens"]


def test_a_batch_smaller_than_the_micro_batches_of_its_ranks_trains_and_does_not_hang(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    whole, ranks = tmp_path / "whole", tmp_path / "ranks"
    flags |= {"global_batch_size": 3, "max_steps": 4}
    assert pretrain_here(**flags, local_batch_size=3, output_dir=whole).code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(REPOSITORY / "run_pretraining.py")]
    outcome = run_program([*command, *words({**flags, "local_batch_size": 1, "output_dir": ranks})])
    assert outcome.code == 0, outcome.err
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, ranks)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_ranks_tell_one_error_once(flags: dict[str, Any], tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(REPOSITORY / "run_pretraining.py")]
    wrong = {**flags, "input_dir": tmp_path / "nowhere", "output_dir": tmp_path / "run"}
    outcome = run_program([*command, *words(wrong)])
    assert outcome.code != 0
    assert outcome.err.count("nowhere") == 1
