"""The shipped launch scripts without a scheduler of their own: one machine, two machines over ssh, Open MPI."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import sshd
from tests.support.runs import (
    REPOSITORY,
    assert_same_state,
    checkpoint,
    metrics,
    pretraining_command,
    run_program,
    started,
    torchrun,
    wait_until,
    words,
)
from tests.support.slurm import free_ports

LAUNCH = REPOSITORY / "scripts" / "launch"
PYTHON = {"PYTHON": sys.executable}

over_ssh = pytest.mark.skipif(
    bool(sshd.missing_programs()), reason=f"not installed: {', '.join(sshd.missing_programs())} (apt: openssh-server)"
)


@pytest.fixture(scope="module")
def shared_flags(tiny_model: Path, shards64: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a run of three updates; its configuration file keeps the shipped one of BERT-large out."""
    config = tmp_path_factory.mktemp("config") / "none.json"
    config.write_text("{}")
    return {
        "config_file": config, "input_dir": shards64, "model_config_file": tiny_model, "max_steps": 3,
        "learning_rate": 5e-3, "global_batch_size": 8, "local_batch_size": 4, "max_predictions_per_seq": 10,
    }  # fmt: skip


@pytest.fixture
def flags(shared_flags: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that a test may change."""
    return dict(shared_flags)


@pytest.fixture(scope="module")
def reference(shared_flags: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the last checkpoint of plain torchrun with two ranks."""
    folder = tmp_path_factory.mktemp("reference")
    done = run_program(torchrun(2, **shared_flags, output_dir=folder))
    assert done.code == 0, done.err
    return checkpoint(folder, 3)


def assert_equal_to(reference: dict[str, Any], run: Path) -> None:
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(reference[part], checkpoint(run, 3)[part], part)


def test_each_script_is_a_plain_script_on_one_machine_and_phase_2_follows_phase_1(
    flags: dict[str, Any], reference: dict[str, Any], shards128: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    del flags["input_dir"]
    second = {"input_dir_phase2": shards128, "previous_phase_end_step_phase2": 3}
    first = {"input_dir_phase1": shards128.with_name(shards128.name.replace("128", "64"))}
    script = str(REPOSITORY / "scripts" / "run_pretraining.sbatch")
    command = [script, "--nproc_per_node", "2", *words({**flags, **first, **second, "output_dir": run})]
    done = run_program(command, **PYTHON, PHASE="both")
    assert done.code == 0, done.err
    assert [row["reason"] for row in metrics(run, "end")] == ["finished", "finished"]
    assert_equal_to(reference, run)
    assert checkpoint(run, 6)


def test_phase_2_does_not_begin_when_phase_1_has_not_finished(
    flags: dict[str, Any], shards128: Path, tmp_path: Path
) -> None:
    given = {**flags, "output_dir": tmp_path / "run", "steps": 1}
    command = [str(LAUNCH / "torchrun.sh"), "--phase", "both", "run_pretraining.py", *words(given)]
    done = run_program(command, **PYTHON)
    assert done.code == 0, done.err
    assert "phase 1 has not finished" in done.err
    assert [row["reason"] for row in metrics(tmp_path / "run", "end")] == ["session_limit"]


@pytest.mark.parametrize(
    "name", ["run_pretraining.sbatch", "run_pretraining.cobalt", "run_pretraining.pbs", "run_pretraining.sge"]
)
def test_every_script_passes_words_and_exit_codes_through(name: str, tmp_path: Path) -> None:
    told = run_program(
        [str(LAUNCH / name), "--dry-run", "--nproc_per_node", "3", "--log_prefix", "a 'b' $(id)"], **PYTHON
    )
    assert told.code == 0, told.err
    assert "--nproc_per_node=3" in told.out
    assert """--log_prefix 'a '"'"'b'"'"' $(id)'""" in told.out
    wrong = run_program([str(LAUNCH / name), "--nproc_per_node", "0"], **PYTHON)
    assert wrong.code == 2


def test_a_program_that_fails_fails_the_launcher(tmp_path: Path) -> None:
    done = run_program([str(LAUNCH / "torchrun.sh"), "run_pretraining.py", "--learning_rat", "1"], **PYTHON)
    assert done.code not in (0, 75)
    assert "--learning_rate" in done.err


@over_ssh
@pytest.mark.parametrize(
    ("line", "variable", "job"),
    [
        ("{}", "COBALT_NODEFILE", {"COBALT_JOBID": str(os.getpid())}),
        ("{} slots=1", "OMPI_MCA_orte_default_hostfile", {}),  # the launcher's Pod of an MPIJob
    ],
)
def test_two_machines_of_a_node_file_train_over_ssh_as_torchrun_does(
    line: str, variable: str, job: dict[str, str], flags: dict[str, Any], reference: dict[str, Any], tmp_path: Path
) -> None:
    nodes, run = tmp_path / "nodes", tmp_path / "run"
    nodes.write_text("\n".join(map(line.format, sshd.MACHINES)))
    command = [str(LAUNCH / "run_pretraining.cobalt"), *words({**flags, "output_dir": run})]
    with sshd.running_machines(tmp_path) as variables:
        done = run_program(command, **variables, **PYTHON, **job, **{variable: str(nodes)})
    assert done.code == 0, done.err
    assert_equal_to(reference, run)


@over_ssh
def test_a_signal_to_the_launcher_stops_both_machines_with_their_state_saved(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    endless = {**flags, "max_steps": 100_000, "num_steps_per_checkpoint": 100_000, "output_dir": run}
    command = [str(LAUNCH / "torchrun.sh"), "--nodes", ",".join(sshd.MACHINES), "run_pretraining.py", *words(endless)]
    with sshd.running_machines(tmp_path) as variables, started(command, log, **variables, **PYTHON) as process:
        wait_until(lambda: metrics(run, "train"), 90, "the first update")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75, log.read_text()
    (end,) = metrics(run, "end")
    assert end["reason"] == "signal"
    assert checkpoint(run, end["step"])


def test_launchers_on_each_machine_of_a_pytorchjob_train_as_torchrun_and_a_signal_to_one_stops_both(
    flags: dict[str, Any], reference: dict[str, Any], tmp_path: Path
) -> None:
    port = str(free_ports(1)[0])

    def command(run: Path, **changed: Any) -> list[str]:
        own = ["--start_with=each", f"--nodes={','.join(sshd.MACHINES)}", "--port", port, "run_pretraining.py"]
        return [str(LAUNCH / "torchrun.sh"), *own, *words({**flags, **changed, "output_dir": run})]

    def machine(index: int) -> dict[str, str]:  # as the operator says it, with names that one machine has
        operator = {"RANK": str(index), "WORLD_SIZE": "2", "PET_NODE_RANK": str(index), "PET_NNODES": "2"}
        return {**operator, "MASTER_ADDR": "127.0.0.1", "BERT_PYTORCH_NODE": sshd.MACHINES[index], **PYTHON}

    whole = tmp_path / "whole"
    with started(command(whole), tmp_path / "log", **machine(1)) as worker:
        done = run_program(command(whole), **machine(0))
        assert done.code == 0, done.err
        assert worker.wait(60) == 0
    assert_equal_to(reference, whole)

    run, endless = tmp_path / "stopped", {"max_steps": 100_000, "num_steps_per_checkpoint": 100_000}
    with (
        started(command(run, **endless), tmp_path / "log_0", **machine(0)) as master,
        started(command(run, **endless), tmp_path / "log_1", **machine(1)) as worker,
    ):
        wait_until(lambda: metrics(run, "train"), 90, "the first update")
        worker.send_signal(signal.SIGTERM)
        assert (master.wait(60), worker.wait(60)) == (75, 75), (tmp_path / "log_0").read_text()
    (end,) = metrics(run, "end")
    assert end["reason"] == "signal"
    assert checkpoint(run, end["step"])


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed (apt: openmpi-bin)")
def test_ranks_that_open_mpi_starts_train_as_torchruns(
    flags: dict[str, Any], reference: dict[str, Any], tmp_path: Path
) -> None:
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2"]
    done = run_program([*mpirun, *pretraining_command(**flags, output_dir=tmp_path / "run")])
    assert done.code == 0, done.err
    assert_equal_to(reference, tmp_path / "run")


def test_ranks_that_only_init_method_tells_train_as_torchruns(
    flags: dict[str, Any], reference: dict[str, Any], tmp_path: Path
) -> None:
    def command(rank: int) -> list[str]:
        method = f"file://{tmp_path / 'meeting'}?rank={rank}&world_size=2"
        return pretraining_command(**flags, output_dir=tmp_path / "run", init_method=method)

    with started(command(1), tmp_path / "log"):
        done = run_program(command(0))
    assert done.code == 0, done.err
    assert_equal_to(reference, tmp_path / "run")


def test_a_rank_that_waits_in_vain_says_so_in_one_message(flags: dict[str, Any], tmp_path: Path) -> None:
    method = f"file://{tmp_path / 'meeting'}?rank=0&world_size=2"
    given = {**flags, "output_dir": tmp_path / "run", "init_method": method, "rendezvous_timeout_minutes": 0.01}
    done = run_program(pretraining_command(**given))
    assert done.code == 1
    assert "1 of 2 ranks joined" in done.err
    assert "missing: rank 1." in done.err
    assert "Traceback" not in done.err
