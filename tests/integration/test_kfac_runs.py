"""Runs with --kfac: what a second start, other ranks and wrong flags do."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from bert_pytorch.optim.kfac.factors import from_triangle
from tests.support.runs import (
    REPOSITORY,
    assert_same_state,
    checkpoint,
    metrics,
    pretrain_here,
    pretraining_command,
    run_program,
    started,
    wait_until,
    words,
)


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
    outcome = pretrain_here(**flags, output_dir=whole)
    assert outcome.code == 0, outcome.err
    assert (outcome.out + outcome.err).count("K-FAC: largest curvature of a layer") == 1
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


def test_a_run_killed_between_two_decompositions_ends_with_the_same_bits(flags: dict[str, Any], tmp_path: Path) -> None:
    flags |= {"max_steps": 24, "kfac_inv_interval": 21}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert pretrain_here(**flags, output_dir=whole).code == 0
    command = pretraining_command(**flags, num_steps_per_checkpoint=1, output_dir=killed)
    with started(command, tmp_path / "log") as process:
        wait_until((killed / "pretrain_ckpts" / "ckpt_4.pt").exists, 60, "update 4")
        process.kill()
    last = max(int(path.stem.removeprefix("ckpt_")) for path in (killed / "pretrain_ckpts").glob("ckpt_*.pt"))
    assert last < 21, "too late: decompositions are at 1 and 22"
    bases, factors = (checkpoint(killed, last)["preconditioner"][kind] for kind in ("bases", "factors"))
    assert_other_decompositions(bases, factors)
    outcome = pretrain_here(**flags, output_dir=killed)
    assert outcome.code == 0, outcome.err
    for part in ("model", "optimizer", "preconditioner"):
        assert_same_state(checkpoint(whole, 24)[part], checkpoint(killed, 24)[part], part)
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, killed)]
    assert losses[0] == losses[1]
    assert {row["kfac_failures"] for row in metrics(killed, "train")} == {0}


def assert_other_decompositions(bases: dict[str, Any], factors: dict[str, Any]) -> None:
    """The factors have moved on since: what is resumed cannot be had from them."""
    name = "bert.encoder.layer.0.output.dense"
    values = torch.linalg.eigvalsh(from_triangle(factors[name]["inputs"]))
    assert not torch.allclose(values, bases[name]["input_values"], rtol=1e-3)


def test_a_run_whose_decompositions_all_fail_is_the_run_without_kfac(
    flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(matrix: torch.Tensor) -> None:
        raise torch.linalg.LinAlgError("linalg.eigh: The algorithm failed to converge")

    plain, kfac = tmp_path / "plain", tmp_path / "kfac"
    assert pretrain_here(**{**flags, "kfac": False}, output_dir=plain).code == 0
    monkeypatch.setattr(torch.linalg, "eigh", failing)
    outcome = pretrain_here(**flags, output_dir=kfac)
    assert outcome.code == 0, outcome.err
    assert (outcome.out + outcome.err).count("could not be decomposed") == 1
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (plain, kfac)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert [row["kfac_failures"] for row in metrics(plain, "train")] == [None] * 7
    assert [row["kfac_failures"] for row in metrics(kfac, "train")] == [15 * step for step in range(1, 8)]


def test_ranks_take_the_same_updates_as_one_process_whoever_decomposes(
    flags: dict[str, Any], still_model: Path, tmp_path: Path
) -> None:
    flags |= {"max_steps": 6, "model_config_file": still_model}
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
        (
            {"kfac_backend": "kfac-pytorch", "kfac_max_rows": 9},
            "--kfac_max_rows: --kfac_backend kfac-pytorch has nothing",
        ),
        ({"kfac_backend": "kfac-pytorch", "kfac_factored_damping": True}, "--kfac_factored_damping"),
        ({"kfac_backend": "kfac-pytorch", "kfac_relative_damping": True}, "--kfac_relative_damping"),
    ],
)
def test_wrong_flags_are_refused_with_the_values_wanted(
    flags: dict[str, Any], wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    outcome = pretrain_here(**{**flags, **wrong}, output_dir=tmp_path / "run")
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.parametrize("module", [None, ModuleType("kfac")], ids=["absent", "the index's project of that name"])
def test_without_kfac_pytorch_one_message_tells_where_to_get_it(
    flags: dict[str, Any], module: ModuleType | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kfac", module)
    monkeypatch.delitem(sys.modules, "kfac.preconditioner", raising=False)
    outcome = pretrain_here(**flags, kfac_backend="kfac-pytorch", output_dir=tmp_path / "run")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert outcome.err.count("kfac.preconditioner.KFACPreconditioner cannot be imported") == 1
    assert "pip install git+https://github.com/gpauloski/kfac-pytorch" in outcome.err


def test_a_dry_run_tells_what_kfac_takes_on_a_rank(tmp_path: Path) -> None:
    shape = {"dry_run": True, "model_config_file": "bert_large_uncased", "global_batch_size": 64}
    plain, kfac = (pretrain_here(**shape, kfac=kfac) for kfac in (False, True))
    assert (plain.code, kfac.code) == (0, 0), kfac.err
    assert "GiB more on the rank" not in plain.out
    # 24 layers of 4 (1025² + 1024²), 1025² + 4096² and 4097² + 1024²; pooler, transform and pairs: float32 squares.
    squares = 24 * (4 * (1025**2 + 1024**2) + (1025**2 + 4096**2) + (4097**2 + 1024**2)) + 5 * 1025**2
    told = next(line for line in kfac.out.splitlines() if line.startswith("K-FAC"))
    numbers = [float(word.rstrip(",:")) for word in told.split() if word[0].isdigit()]
    assert numbers == pytest.approx([times * 4 * squares / 2**30 for times in (2.5, 0.5, 1, 1)], rel=0.01)
