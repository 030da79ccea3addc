"""Runs with --kfac: what a second start, other ranks and wrong flags do."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import REPOSITORY, assert_same_state, checkpoint, metrics, pretrain_here, run_program, words


@pytest.fixture
def flags(shards64: Path, tiny_model: Path) -> dict[str, Any]:
    return {
        "input_dir": shards64,
        "model_config_file": tiny_model,
        "learning_rate": 2e-3,
        "warmup_proportion": 0.2,
        "global_batch_size": 8,
        "local_batch_size": 4,
        "max_steps": 7,
        "max_predictions_per_seq": 10,
        "num_workers": 0,
        "kfac": True,
        "kfac_factor_interval": 2,
        "kfac_inv_interval": 3,
        "kfac_damping": 0.01,
    }


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_run_cut_between_two_decompositions_ends_with_the_same_bits(
    flags: dict[str, Any], optimizer: str, tmp_path: Path
) -> None:
    flags |= {"optimizer": optimizer}
    whole, pieces, plain = tmp_path / "whole", tmp_path / "pieces", tmp_path / "plain"
    assert pretrain_here(**flags, output_dir=whole).code == 0
    assert pretrain_here(**{**flags, "kfac": False}, output_dir=plain).code == 0
    assert checkpoint(plain, 7)["preconditioner"] is None
    for limit in (2, 3, None):  # decompositions at 1, 4 and 7, factors at 1, 3, 5 and 7
        outcome = pretrain_here(**flags, output_dir=pieces, steps=limit)
        assert outcome.code == 0, outcome.err
    for part in ("model", "optimizer", "preconditioner"):
        assert_same_state(checkpoint(whole, 7)[part], checkpoint(pieces, 7)[part], part)
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, pieces, plain)]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_ranks_take_the_same_updates_as_one_process_whoever_decomposes(flags: dict[str, Any], tmp_path: Path) -> None:
    model = tmp_path / "no_dropout.json"
    model.write_text(json.dumps({**json.loads(flags["model_config_file"].read_text()), "hidden_dropout_prob": 0.0}))
    flags |= {"max_steps": 6, "model_config_file": model}
    one = tmp_path / "one"
    assert pretrain_here(**flags, output_dir=one).code == 0
    reference = metrics(one, "train")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for workers, sessions in ((1.0, [None]), (0.5, [5, None])):  # one is cut between two decompositions
        run = tmp_path / f"workers_{workers}"
        for steps in sessions:
            shared = {**flags, "kfac_gradient_workers": workers, "output_dir": run, "steps": steps}
            outcome = run_program([*launcher, str(REPOSITORY / "run_pretraining.py"), *words(shared)])
            assert outcome.code == 0, outcome.err
        rows = metrics(run, "train")
        assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        # Eigenvectors turn by the rounding of the factors over the gap of their eigenvalues; the solve does not.
        assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in reference], rel=2e-5)
        states = [checkpoint(folder, 6)["preconditioner"] for folder in (one, run)]
        assert states[0]["bases"].keys() == states[1]["bases"].keys()
        assert len(states[0]["bases"]) == 15


def test_fp16_and_bf16_runs_train_with_kfac(flags: dict[str, Any], tmp_path: Path) -> None:
    for precision in ("fp16", "bf16"):
        run = tmp_path / precision
        outcome = pretrain_here(**{**flags, "max_steps": 3}, precision=precision, output_dir=run)
        assert outcome.code == 0, outcome.err
        assert [row["step"] for row in metrics(run, "train")] == [1, 2, 3]


def test_a_state_of_other_layers_is_refused_with_what_to_do(flags: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert pretrain_here(**flags, output_dir=run, steps=2).code == 0
    outcome = pretrain_here(**flags, kfac_skip_layers="pooler", output_dir=run)
    assert outcome.code != 0
    assert "bert.pooler.dense" in outcome.err
    assert "--kfac_skip_layers" in outcome.err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kfac_inv_interval": "often"}, "whole numbers ≥ 1"),
        ({"kfac_factor_interval": 0}, "whole numbers ≥ 1"),
        ({"kfac_damping": "0.1,5:0"}, "numbers > 0"),
        ({"kfac_skip_layers": "("}, "no regular expression"),
        ({"compile": True}, "--compile"),
        ({"cuda_graphs": True, "packing": "rows"}, "--cuda_graphs"),
        ({"kfac_skip_layers": "."}, "leaves no layer"),
    ],
)
def test_wrong_flags_are_refused_with_the_values_wanted(
    flags: dict[str, Any], wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    outcome = pretrain_here(**{**flags, **wrong}, output_dir=tmp_path / "run")
    assert outcome.code == 2
    assert said in outcome.err
