"""Tables: what each scheduler's variables make of a job, and the words that start it."""

import os
from pathlib import Path
from unittest import mock

import pytest
from torch.distributed.run import get_args_parser

from bert_pytorch.errors import ConfigError
from bert_pytorch.launch.allocation import Allocation, cpus_of_node, gpus_of_this_machine, read_allocation
from bert_pytorch.launch.commands import NODE_PROGRAM, ROLL_CALL, ssh_words, starting_words, torchrun_words
from bert_pytorch.launch.config import LaunchConfig
from bert_pytorch.runtime.ranks import port_of_job

SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_PROCID": "0"}
FILES = {
    "/spool/nodes": "n1\nn1\nn2\nn2\n",
    "/spool/one": "n1\n",
    "/spool/pe": "n1 4 all.q@n1 UNDEFINED\nn2 4 all.q@n2 UNDEFINED\n",
}


def allocation(environment: dict[str, str], *, gpus: int = 0, mpiexec: bool = False, **options: object) -> Allocation:
    return read_allocation(
        LaunchConfig.model_validate(options),
        environment,
        local_gpus=gpus,
        has_program=lambda name: mpiexec and name == "mpiexec",
        read=FILES.__getitem__,
    )


@pytest.mark.parametrize(
    ("environment", "mpiexec", "scheduler", "nodes", "starter"),
    [
        ({}, True, "none", (), "here"),
        (SLURM, False, "SLURM", ("n1", "n2"), "srun"),
        (SLURM | {"SLURM_JOB_NODELIST": "n1"}, False, "SLURM", (), "here"),
        ({"COBALT_JOBID": "3", "COBALT_NODEFILE": "/spool/nodes"}, True, "Cobalt", ("n1", "n2"), "ssh"),
        ({"COBALT_JOBID": "3", "COBALT_NODEFILE": "/spool/one"}, True, "Cobalt", (), "here"),
        ({"PBS_JOBID": "3.pbs", "PBS_NODEFILE": "/spool/nodes"}, True, "PBS", ("n1", "n2"), "mpiexec"),
        ({"PBS_JOBID": "3.pbs", "PBS_NODEFILE": "/spool/nodes"}, False, "PBS", ("n1", "n2"), "ssh"),
        ({"JOB_ID": "3", "PE_HOSTFILE": "/spool/pe"}, True, "SGE", ("n1", "n2"), "ssh"),
    ],
)
def test_a_job_has_the_machines_of_its_scheduler(
    environment: dict[str, str], mpiexec: bool, scheduler: str, nodes: tuple[str, ...], starter: str
) -> None:
    found = allocation(environment, mpiexec=mpiexec)
    assert (found.scheduler, found.nodes, found.starter) == (scheduler, nodes, starter)


def test_options_come_before_the_scheduler() -> None:
    found = allocation(SLURM, nodes="m[1-3]", start_with="ssh", port=2000, nproc_per_node="5")
    assert (found.nodes, found.starter, found.port, found.processes) == (("m1", "m2", "m3"), "ssh", 2000, "5")


@pytest.mark.parametrize(
    ("environment", "options", "nodes", "starter"),
    [
        ({"MASTER_ADDR": "m", "WORLD_SIZE": "3"}, {}, ("m", "machine-1", "machine-2"), "each"),
        ({"MASTER_ADDR": "m", "WORLD_SIZE": "1"}, {}, (), "here"),
        ({"MASTER_ADDR": "m", "WORLD_SIZE": "3"}, {"nodes": "a-0,a-[1-2]"}, ("a-0", "a-1", "a-2"), "each"),
    ],
)
def test_a_launcher_that_runs_on_each_machine_counts_them_or_is_told_their_names(
    environment: dict[str, str], options: dict[str, str], nodes: tuple[str, ...], starter: str
) -> None:
    found = allocation(environment, start_with="each", **options)
    assert (found.nodes, found.starter) == (nodes, starter)


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "2"}, {"MASTER_ADDR": "m", "WORLD_SIZE": "0"}])
def test_machines_that_nothing_counts_are_told(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="wanted the number of machines and the address of the first"):
        allocation(environment, start_with="each")


def test_jobs_meet_at_ports_of_their_own() -> None:
    assert allocation(SLURM).port == port_of_job("7") != allocation(SLURM | {"SLURM_JOB_ID": "8"}).port


@pytest.mark.parametrize(
    ("environment", "gpus", "processes"),
    [
        ({}, 0, "1"),
        ({}, 8, "gpu"),
        ({"CUDA_VISIBLE_DEVICES": ""}, 8, "1"),
        ({"SLURM_GPUS_ON_NODE": "4"}, 0, "4"),
        ({"SLURM_GPUS_PER_NODE": "a100:2"}, 0, "2"),
        ({"SLURM_GPUS_ON_NODE": "0"}, 0, "1"),
    ],
)
def test_one_process_a_gpu(environment: dict[str, str], gpus: int, processes: str) -> None:
    assert allocation(SLURM | environment, gpus=gpus).processes == processes


def test_gpus_are_counted_by_their_device_files(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia0x"):
        (tmp_path / name).touch()
    assert gpus_of_this_machine(tmp_path) == 3


def test_a_launcher_that_srun_multiplied_is_refused() -> None:
    with pytest.raises(ConfigError, match="start it once"):
        allocation(SLURM | {"SLURM_STEP_NUM_TASKS": "2"})


def test_a_node_file_that_cannot_be_read_is_an_error_not_one_machine() -> None:
    environment = {"COBALT_JOBID": "3", "COBALT_NODEFILE": "/does/not/exist"}
    with pytest.raises(ConfigError, match="/does/not/exist: cannot be read"):
        read_allocation(LaunchConfig(), environment, local_gpus=0, has_program=lambda name: False)


def test_torchrun_meets_at_the_first_machine_under_the_jobs_number() -> None:
    words = torchrun_words(LaunchConfig(join_minutes=2, max_restarts=3), allocation(SLURM), ["x.py", "a b"], "python")
    assert {"--nnodes=2", f"--rdzv_endpoint=n1:{port_of_job('7')}", "--rdzv_id=7", "--max_restarts=3"} <= set(words)
    assert "--rdzv_conf=join_timeout=120" in words
    assert words[:5] == ["python", str(ROLL_CALL), f"n1:{port_of_job('7') + 1}", "120", "n1,n2"]
    assert words[5] == "env"
    assert words[8:11] == ["python", "-m", "torch.distributed.run"]
    assert words[-2:] == ["x.py", "a b"]


def test_what_an_older_torchrun_does_not_know_is_a_variable() -> None:
    """Gaudi's torch 2.10 has no --shutdown_timeout; torchrun reads PET_NAME for each of its options."""
    words = torchrun_words(LaunchConfig(grace_seconds=9), allocation({}), ["x.py"], "python")
    given = dict(word.split("=") for word in words[1 : words.index("python")])
    with mock.patch.dict(os.environ, given):
        read = get_args_parser().parse_args(words[words.index("torch.distributed.run") + 1 :])
    assert read.shutdown_timeout == 9
    assert read.signals_to_handle == "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"


def test_one_machine_needs_no_port() -> None:
    words = torchrun_words(LaunchConfig(), allocation({}), ["x.py"], "python")
    assert "--standalone" in words
    assert not any(word.startswith("--rdzv") for word in words)


def test_srun_starts_one_task_a_machine() -> None:
    words = starting_words(allocation(SLURM), ["torchrun", "$(id)"], grace_seconds=9, open_mpi=False, cpus="8")
    assert words[0] == "srun"
    assert {
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--nodelist=n1,n2",
        "--cpus-per-task=8",
        "--wait=9",
    } <= set(words)
    assert words[-2:] == ["torchrun", "$(id)"]


@pytest.mark.parametrize(
    ("environment", "cpus"),
    [
        ({"SLURM_JOB_CPUS_PER_NODE": "72(x2),36"}, "36"),
        ({"SLURM_JOB_CPUS_PER_NODE": "64", "SLURM_CPUS_PER_TASK": "16"}, "64"),  # of 4 tasks a node: torchrun gets all
        ({"SLURM_CPUS_PER_TASK": "16"}, "16"),
        ({}, None),
    ],
)
def test_the_one_task_of_a_machine_asks_for_all_its_processors(environment: dict[str, str], cpus: str | None) -> None:
    assert cpus_of_node(environment) == cpus


@pytest.mark.parametrize(
    ("open_mpi", "options"),
    [
        (True, ["-np", "2", "--host", "n1,n2", "--map-by", "ppr:1:node", "--bind-to", "none", "-x", "X"]),
        (False, ["-n", "2", "-ppn", "1"]),
    ],
)
def test_mpiexec_starts_one_process_a_machine(open_mpi: bool, options: list[str]) -> None:
    environment = {"PBS_JOBID": "3", "PBS_NODEFILE": "/spool/nodes"}
    found = allocation(environment, mpiexec=True)
    words = starting_words(found, ["torchrun"], grace_seconds=9, open_mpi=open_mpi, cpus=None, carried=["X"])
    assert words == ["mpiexec", *options, "torchrun"]


def test_the_remote_shell_gets_two_quoted_paths_and_nothing_else() -> None:
    words = ssh_words("n2", "/a path/python")
    assert words[-2] == "n2"
    assert words[-1] == f"'/a path/python' {NODE_PROGRAM}"
