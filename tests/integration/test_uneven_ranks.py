"""Ranks that take unequal parts of an update train as one process does: real gloo ranks, one of which may take nothing.

Sums of float32 in another order differ in the last bit.  A few updates of a contracting loss keep losses within 1e-6 of
each other, as in test_large_batch_equality; LAMB divides by norms of rounded values, so that parameters are compared by
the norm of their difference.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_pytorch.inspect.__main__ import main as inspect
from tests.support.runs import (
    checkpoint,
    metrics,
    pretrain_here,
    pretraining_command,
    run_ranks,
    started_ranks,
    wait_until,
)

UPDATES = 6


@pytest.fixture
def flags(shards64: Path, still_model: Path) -> dict[str, Any]:
    """Return a run whose update of 13 sequences no number of ranks divides; a model without dropout."""
    return {
        "input_dir": shards64, "model_config_file": still_model, "learning_rate": 2e-3, "warmup_proportion": 0.2,
        "global_batch_size": 13, "local_batch_size": 13, "max_steps": UPDATES, "max_predictions_per_seq": 10,
        "num_steps_per_checkpoint": 2, "num_workers": 1,
    }  # fmt: skip


@pytest.fixture
def whole(flags: dict[str, Any], tmp_path: Path) -> Path:
    """Return the run of one process that takes each update at once."""
    run = tmp_path / "whole"
    outcome = pretrain_here(**flags, output_dir=run)
    assert outcome.code == 0, outcome.err
    return run


def log_of(run: Path) -> str:
    return (run / "logfile.txt").read_text()


def assert_same_training(run: Path, whole: Path, *, rel: float = 1e-6) -> None:
    """Compare rows, evaluations and the last weights of two runs."""
    ours, theirs = metrics(run, "train"), metrics(whole, "train")
    for key in ("step", "samples", "sequences", "epoch"):
        assert [row[key] for row in ours] == [row[key] for row in theirs], key
    for key in ("loss", "mlm_loss", "nsp_loss", "grad_norm"):
        assert [row[key] for row in ours] == pytest.approx([row[key] for row in theirs], rel=rel), key
    for one, other in zip(metrics(run, "eval")[-1:], metrics(whole, "eval")[-1:], strict=True):
        assert one["masked_tokens"] == other["masked_tokens"]
        assert one["mlm_loss"] == pytest.approx(other["mlm_loss"], rel=rel)
    states = [checkpoint(folder, theirs[-1]["step"]) for folder in (run, whole)]
    assert states[0]["data_position"] == states[1]["data_position"]
    for name, wanted in states[1]["model"].items():
        if name.endswith("key.bias"):
            continue  # it changes no softmax: its gradient, and so its value, is rounding alone
        error = torch.linalg.vector_norm(states[0]["model"][name].double() - wanted.double())
        assert error <= 10 * rel * torch.linalg.vector_norm(wanted.double()), name


def test_ranks_of_6_and_2_train_as_one_process_and_say_who_took_what(
    flags: dict[str, Any], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run_ranks([pretraining_command(**flags, local_batch_sizes="6,2", output_dir=run)] * 2, tmp_path / "log")
    assert_same_training(run, whole)
    assert re.search(r"micro-batches of at most: 6,2 on \S+ \(ranks 0 to 1\) \(as told\)", log_of(run))
    capsys.readouterr()
    for rank, counts in ((0, (5, 5)), (1, (1, 2))):  # of 13: ten and three, each in two micro-batches
        assert inspect(["batch", str(run), "--step", "2", "--rank", str(rank), "--num_samples", "0"]) == 0
        shown = capsys.readouterr().out
        for number, count in enumerate(counts):
            assert f"micro-batch {number} of rank {rank}: {count} sequences" in shown


def test_a_rank_that_takes_nothing_takes_part_in_training_evaluation_and_kfac(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    flags |= {"kfac": True, "kfac_factor_interval": 2, "kfac_inv_interval": 3, "kfac_damping": 0.01}
    flags |= {"kfac_relative_damping": False}  # else layers' conditions, up to 1e5, multiply float32's rounding
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert pretrain_here(**flags, output_dir=whole).code == 0
    uneven = {**flags, "local_batch_sizes": "8,0", "eval_interval": 3, "kfac_gradient_workers": 0.5}
    run_ranks([pretraining_command(**uneven, output_dir=run)] * 2, tmp_path / "log")
    assert len(metrics(run, "eval")) == 3
    assert_same_training(run, whole, rel=2e-5)  # as test_kfac_runs: eigenvectors turn by rounding over gaps


def test_a_run_of_three_uneven_ranks_is_killed_and_goes_on_with_two_of_other_sizes(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    whole, run, log = tmp_path / "whole", tmp_path / "run", tmp_path / "log"
    flags |= {"max_steps": 20}
    assert pretrain_here(**flags, output_dir=whole).code == 0
    command = pretraining_command(**flags, local_batch_sizes="3,0,2", output_dir=run)
    with started_ranks([command] * 3, log) as processes:
        wait_until(lambda: len(metrics(run, "train")) >= 3 or processes[0].poll() is not None, 120, "three updates")
        for process in processes:
            process.kill()
    run_ranks([pretraining_command(**flags, local_batch_sizes="1,5", output_dir=run)] * 2, log)
    assert_same_training(run, whole)
    assert "changed since the last session: local_batch_sizes: 3,0,2 → 1,5" in log_of(run)


def test_ranks_with_a_local_batch_size_on_each_own_command_line_need_no_list(
    flags: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    run_ranks([pretraining_command(**{**flags, "local_batch_size": size}, output_dir=run) for size in (6, 2)], log)
    assert_same_training(run, whole)
    assert "micro-batches of at most: 6,2 on " in log_of(run)


def test_measured_sizes_are_kept_by_a_resumed_run_and_settled_anew_for_other_ranks(
    flags: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags |= {"local_batch_sizes": "measure", "local_batch_size": 8}
    command = pretraining_command(**flags, output_dir=run, steps=2)
    run_ranks([command] * 2, log)
    sizes = checkpoint(run, 2)["choices"]["measured_sizes"]
    assert max(sizes) == 8
    assert re.search(r"micro-batches: measured \S+, \S+ sequences/s by rank", log_of(run))
    run_ranks([command] * 2, log)
    assert checkpoint(run, 4)["choices"]["measured_sizes"] == sizes
    assert "(as this run did so far)" in log_of(run)
    assert "changed since" not in log_of(run)
    outcome = pretrain_here(**flags, output_dir=run)
    assert outcome.code == 0, outcome.err
    assert "micro-batches: 1 ranks now, 2 in the session before" in log_of(run)
    assert_same_training(run, whole)


def test_a_list_for_another_number_of_ranks_is_refused_before_anything_is_written(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    outcome = pretrain_here(**flags, local_batch_sizes="6,2", output_dir=tmp_path / "run")
    assert outcome.code == 2
    assert "--local_batch_sizes: found 2 sizes (6,2) for 1 ranks, wanted one for each" in outcome.err
    assert not (tmp_path / "run").exists()


def test_dry_run_counts_the_ranks_of_a_list(flags: dict[str, Any], tmp_path: Path) -> None:
    told = pretrain_here(**flags, local_batch_sizes="6x2,2", output_dir=tmp_path / "run", dry_run=True).out
    assert re.search(r"^ranks +3$", told, re.MULTILINE)
    assert "1 a rank and update, of at most 6x2,2 sequences" in told
