"""The shipped SLURM script on a real SLURM of two nodes: both phases, stops, requeue, failures."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs import (
    REPOSITORY,
    assert_same_state,
    checkpoint,
    metrics,
    run_program,
    torchrun,
    wait_until,
    words,
)
from tests.support.slurm import NODES, Slurm, missing_programs, running_slurm

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"not installed: {', '.join(missing_programs())} (apt: slurm-wlm munge)"
)

SCRIPT = REPOSITORY / "scripts" / "launch" / "run_pretraining.sbatch"
PHASE1, PHASE2 = 24, 2


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Run a SLURM for the tests of this file."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def flags(tiny_model: Path) -> dict[str, Any]:
    """Return what both phases are given."""
    return {
        "model_config_file": tiny_model, "learning_rate": 5e-3, "global_batch_size": 8, "local_batch_size": 4,
        "max_predictions_per_seq": 10, "num_steps_per_checkpoint": 10,
    }  # fmt: skip


@pytest.fixture
def phases(shards64: Path, shards128: Path, tmp_path: Path) -> list[dict[str, Any]]:
    """Return what each phase is given besides; the configuration file keeps the shipped one of BERT-large out."""
    (tmp_path / "none.json").write_text("{}")
    common = {"config_file": tmp_path / "none.json"}
    return [
        common | {"input_dir": shards64, "max_steps": PHASE1},
        common | {"input_dir": shards128, "max_steps": PHASE2, "previous_phase_end_step": PHASE1},
    ]


def submit(slurm: Slurm, log: Path, *options: str, script: Path = SCRIPT) -> str:
    """Submit the script for two nodes and return the job's number."""
    done = slurm.call(
        "sbatch", "--parsable", "-N", "2", f"--output={log}", script, *options,
        PYTHON=sys.executable, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def of_phases(phases: list[dict[str, Any]]) -> list[str]:
    return [
        word for number in (0, 1) for word in words({f"{k}_phase{number + 1}": v for k, v in phases[number].items()})
    ]


def test_a_job_that_is_stopped_and_requeued_ends_both_phases_as_torchrun_does(
    slurm: Slurm, flags: dict[str, Any], phases: list[dict[str, Any]], tmp_path: Path
) -> None:
    whole, run, log = tmp_path / "whole", tmp_path / "run", tmp_path / "log"
    options = ["--phase", "both", "--requeue", *of_phases(phases), *words({**flags, "output_dir": run})]
    job = submit(slurm, log, *options)
    wait_until(lambda: metrics(run, "train"), 60, f"the first update\n{log.read_text() if log.exists() else ''}")
    assert slurm.call("scancel", "--signal=TERM", job).returncode == 0  # the steps, as preemption does
    wait_until(lambda: metrics(run, "end"), 60, "the end of the first session")
    assert [row["reason"] for row in metrics(run, "end")] == ["signal"], log.read_text()
    assert slurm.wait_for(job, ("PENDING", "FAILED"), 60) == "PENDING", log.read_text()
    # By itself in 2 minutes; within the same second slurmd takes it for the job that it has just killed ("revoked").
    assert slurm.call("scontrol", "update", f"JobId={job}", "StartTime=now+3seconds").returncode == 0
    assert slurm.wait_for(job, ("COMPLETED", "FAILED"), 120) == "COMPLETED", log.read_text()
    assert [row["reason"] for row in metrics(run, "end")] == ["signal", "finished", "finished"]
    assert slurm.field(job, "Restarts") == "1"

    for phase in phases:
        done = run_program(torchrun(2, **{**flags, **phase}, output_dir=whole))
        assert done.code == 0, done.err
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, PHASE1 + PHASE2)[part], checkpoint(run, PHASE1 + PHASE2)[part], part)
    assert [row["step"] for row in metrics(run, "train")] == list(range(1, PHASE1 + PHASE2 + 1))


@pytest.mark.parametrize("how", ["--batch --signal=USR1", ""], ids=["warned before the limit", "cancelled"])
def test_a_job_that_is_ended_saves_first(
    slurm: Slurm, flags: dict[str, Any], phases: list[dict[str, Any]], tmp_path: Path, how: str
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    job = submit(
        slurm,
        log,
        *words({**flags, **phases[0], "max_steps": 100_000, "num_steps_per_checkpoint": 100_000, "output_dir": run}),
    )
    wait_until(lambda: metrics(run, "train"), 60, "the first update")
    assert slurm.call("scancel", *how.split(), job).returncode == 0
    slurm.wait_for(job, ("FAILED", "CANCELLED"), 60)
    wait_until(lambda: metrics(run, "end"), 10, f"the end row\n{log.read_text()}")
    (end,) = metrics(run, "end")
    assert end["reason"] == "signal", log.read_text()
    assert checkpoint(run, end["step"])
    if how:
        assert slurm.field(job, "ExitCode") == "75:0"


def test_a_rank_that_fails_fails_the_job(slurm: Slurm, tmp_path: Path) -> None:
    script, log = tmp_path / "fails.py", tmp_path / "log"
    script.write_text("import os, sys, time\nif os.environ['RANK'] == '1': sys.exit(3)\ntime.sleep(300)\n")
    begun = time.monotonic()
    job = submit(slurm, log, "--grace_seconds", "2", str(script), script=SCRIPT.with_name("torchrun.sh"))
    assert slurm.wait_for(job, ("COMPLETED", "FAILED"), 90) == "FAILED", log.read_text()
    assert time.monotonic() - begun < 60
    assert slurm.field(job, "ExitCode") not in ("0:0", "75:0", "2:0")
    assert "exitcode  : 3" in log.read_text()


def test_srun_alone_tells_the_ranks(
    slurm: Slurm, flags: dict[str, Any], phases: list[dict[str, Any]], tmp_path: Path
) -> None:
    by_srun, by_torchrun = tmp_path / "srun", tmp_path / "torchrun"
    chosen = {**flags, **phases[0], "max_steps": 3}
    command = torchrun(2, **chosen, output_dir=by_torchrun)
    program = [sys.executable, *command[command.index(str(REPOSITORY / "run_pretraining.py")) :]]
    program[-1] = str(by_srun)
    done = slurm.call(
        "srun", "-N", "2", "-n", "2", *program, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONPATH=str(REPOSITORY)
    )
    assert done.returncode == 0, done.stderr
    assert run_program(command).code == 0
    assert_same_state(checkpoint(by_torchrun, 3)["model"], checkpoint(by_srun, 3)["model"])


def test_the_check_measures_both_nodes_over_a_network_that_leaves_the_machine(slurm: Slurm, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["--device", "cpu", "--largest_mib", "1", "--seconds_per_size", "0.02"]
    job = submit(slurm, log, "check", *options, script=SCRIPT.with_name("torchrun.sh"))
    assert slurm.wait_for(job, ("COMPLETED", "FAILED"), 120) == "COMPLETED", log.read_text()
    told = log.read_text()
    assert "2 ranks on 2 machines; network: " in told
    assert "network: lo" not in told
    assert all(re.search(rf"rank \d +{re.escape(node)} .* GFLOP/s", told) for node in NODES), told
