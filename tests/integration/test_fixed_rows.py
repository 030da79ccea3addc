"""`--packing rows` from the command line: the losses of `--packing tokens`, on one rank and on two."""

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
        "global_batch_size": 23,
        "max_steps": 5,
        "skip_checkpoint": True,
    }


def test_training_and_evaluation_in_rows_equal_those_without_padding(flags: dict[str, Any], tmp_path: Path) -> None:
    tokens, rows, ranks = tmp_path / "tokens", tmp_path / "rows", tmp_path / "ranks"
    assert pretrain_here(**flags, output_dir=tokens).code == 0
    fixed = {**flags, "packing": "rows", "local_batch_size": 3, "max_sequences_per_row": 4}
    assert pretrain_here(**fixed, output_dir=rows).code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    outcome = run_program([*launcher, str(REPOSITORY / "run_pretraining.py"), *words({**fixed, "output_dir": ranks})])
    assert outcome.code == 0, outcome.err
    wanted, wanted_held_out = metrics(tokens, "train"), metrics(tokens, "eval")
    assert len(wanted) == 5
    for run in (rows, ranks):
        found = metrics(run, "train")
        for key in ("loss", "mlm_loss", "nsp_loss", "grad_norm"):
            assert [row[key] for row in found] == pytest.approx([row[key] for row in wanted], rel=2e-6), key
        for one, other in zip(metrics(run, "eval"), wanted_held_out, strict=True):
            assert one["masked_tokens"] == other["masked_tokens"]
            assert one["mlm_loss"] == pytest.approx(other["mlm_loss"], rel=1e-6)
            assert (one["mlm_accuracy"], one["nsp_accuracy"]) == (other["mlm_accuracy"], other["nsp_accuracy"])
    (log,) = [path.read_text() for path in rows.glob("*.txt")]
    assert "attention: row_sdpa" in log
    assert "micro-batches: 3 rows of 64 tokens, each of at most 4 sequences" in log


def test_dry_run_says_what_a_micro_batch_is(flags: dict[str, Any], tmp_path: Path) -> None:
    fixed = {**flags, "packing": "rows", "max_sequences_per_row": 5, "dry_run": True, "output_dir": tmp_path / "run"}
    told = pretrain_here(**fixed, local_batch_size=6).out
    assert "every one of 6 rows, each of at most 5 sequences" in told
    told = pretrain_here(**fixed, max_tokens=640).out
    assert "as many rows as have room in 640 tokens" in told
    outcome = pretrain_here(**fixed, length_group_updates=1)
    assert outcome.code == 2
    assert "--length_group_updates" in outcome.err


def test_what_cuda_graphs_need_is_told(flags: dict[str, Any], tmp_path: Path) -> None:
    outcome = pretrain_here(**flags, output_dir=tmp_path / "run", cuda_graphs=True)
    assert outcome.code == 2
    assert "add --packing rows" in outcome.err
    outcome = pretrain_here(**flags, output_dir=tmp_path / "run", cuda_graphs=True, packing="rows", device="cpu")
    assert outcome.code == 2
    assert "--cuda_graphs" in outcome.err
    assert "found cpu" in outcome.err
