"""Tables: what each starter tells its processes, and what is made of it."""

import pytest

from bert_pytorch.errors import ConfigError
from bert_pytorch.runtime.ranks import (
    FIRST_PORT,
    NUM_PORTS,
    Meeting,
    Ranks,
    discover_ranks,
    find_meeting,
    ranks_on_this_machine,
)

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29400",
    "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2",
}  # fmt: skip
BATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "0",
}
SRUN = BATCH | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[1-2]"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
HYDRA = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
PALS = {"PALS_RANKID": "5", "PMI_RANK": "5", "PMI_SIZE": "8", "PALS_LOCAL_RANKID": "1", "PALS_APID": "a-b"}
POD = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "MASTER_ADDR": "job-master-0",
    "MASTER_PORT": "23456",
    "KUBERNETES_SERVICE_HOST": "x",
}


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({}, Ranks(0, 1, 0, "nothing")),
        (TORCHRUN, Ranks(3, 4, 1, "torchrun")),
        (SRUN | TORCHRUN, Ranks(3, 4, 1, "torchrun")),
        (OPEN_MPI | TORCHRUN, Ranks(3, 4, 1, "torchrun")),
        (BATCH, Ranks(0, 1, 0, "nothing")),
        (SRUN, Ranks(1, 2, 0, "SLURM")),
        (OPEN_MPI, Ranks(1, 2, 1, "Open MPI")),
        (BATCH | OPEN_MPI, Ranks(1, 2, 1, "Open MPI")),
        (HYDRA, Ranks(3, 4, 1, "MPICH")),
        (SRUN | HYDRA, Ranks(3, 4, 1, "MPICH")),  # mpiexec's proxies are SLURM's tasks
        (SRUN | {"PMI_RANK": "1", "PMI_SIZE": "2"}, Ranks(1, 2, 0, "MPICH")),  # srun --mpi=pmi2
        (PALS, Ranks(5, 8, 1, "MPICH")),
        (POD, Ranks(1, 2, 0, "PyTorchJob")),
        (POD | {"LOCAL_RANK": "0"}, Ranks(1, 2, 0, "torchrun")),
        (OPEN_MPI | {"KUBERNETES_SERVICE_HOST": "x"}, Ranks(1, 2, 1, "Open MPI")),  # MPIJob
    ],
)
def test_each_starter_is_understood(environment: dict[str, str], ranks: Ranks) -> None:
    assert discover_ranks(environment) == ranks


@pytest.mark.parametrize(
    ("environment", "here"),
    [
        ({}, 1),
        (TORCHRUN, None),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}, 2),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "1"}, None),  # local rank 1 is not of one
        (BATCH, 1),
        (SRUN | {"SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1"}, 1),
        (SRUN | {"SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2),1"}, 4),
        (SRUN, None),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, 2),
        (HYDRA, 2),
        (PALS, None),
        (POD, 1),
    ],
)
def test_the_ranks_of_this_machine_are_counted_where_somebody_tells(
    environment: dict[str, str], here: int | None
) -> None:
    assert ranks_on_this_machine(environment, discover_ranks(environment)) == here


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0"}, "no WORLD_SIZE, LOCAL_RANK"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "no LOCAL_RANK"),
        (TORCHRUN | {"RANK": "4"}, "outside 0 to 3"),
        (TORCHRUN | {"RANK": "one"}, "whole numbers"),
        (TORCHRUN | {"WORLD_SIZE": "-1"}, "whole numbers"),
        ({"OMPI_COMM_WORLD_RANK": "0"}, "no OMPI_COMM_WORLD_SIZE"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "no MPI_LOCALRANKID"),
    ],
)
def test_half_of_the_variables_is_an_error(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        discover_ranks(environment)


def test_the_init_method_may_say_the_rank() -> None:
    assert discover_ranks({}, "tcp://n1:2000?rank=1&world_size=2") == Ranks(1, 2, 0, "--init_method")
    assert discover_ranks({"LOCAL_RANK": "3"}, "file:///x/y?rank=3&world_size=4") == Ranks(3, 4, 3, "--init_method")
    assert discover_ranks(OPEN_MPI, "tcp://n1:2000") == discover_ranks(OPEN_MPI)
    with pytest.raises(ConfigError, match="no world_size"):
        discover_ranks({}, "tcp://n1:2000?rank=1")


def meeting(
    environment: dict[str, str], init_method: str | None = None, files: dict[str, str] | None = None
) -> Meeting:
    def read(path: str) -> str:
        if files is None or path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return find_meeting(environment, discover_ranks(environment, init_method), init_method, read)


def test_torchrun_says_where_and_keeps_the_store() -> None:
    assert meeting(TORCHRUN) == Meeting("n1", 29400, None, True, ())


@pytest.mark.parametrize(
    ("environment", "host", "hosts"),
    [
        (SRUN, "n1", ("n1", "n2")),
        (SRUN | {"SLURM_STEP_NODELIST": "n2", "SLURM_STEP_NUM_NODES": "1"}, "127.0.0.1", ("n2",)),
        (SRUN | {"MASTER_ADDR": "n2-ib"}, "n2-ib", ("n1", "n2")),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "127.0.0.1", ()),
        (OPEN_MPI | BATCH, "n1", ("n1", "n2")),
        (OPEN_MPI | {"OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile"}, "w-0.job", ("w-0.job", "w-1.job")),
        (HYDRA | {"PBS_NODEFILE": "/spool/7"}, "x1", ("x1", "x2")),
        (POD, "job-master-0", ()),
    ],
)
def test_ranks_meet_at_the_first_machine(environment: dict[str, str], host: str, hosts: tuple[str, ...]) -> None:
    files = {"/etc/mpi/hostfile": "w-0.job slots=1\nw-1.job slots=1\n", "/spool/7": "x1\nx1\nx2\nx2\n"}
    found = meeting(environment, files=files)
    assert (found.host, found.hosts) == (host, hosts)


def test_the_port_is_the_same_on_all_ranks_and_another_for_another_job() -> None:
    ports = {meeting(SRUN | {"SLURM_PROCID": rank, "SLURM_JOB_ID": job}).port for rank in "01" for job in "78"}
    assert len(ports) == 2
    assert all(FIRST_PORT <= port < FIRST_PORT + NUM_PORTS for port in ports)


def test_a_node_file_that_lies_elsewhere_is_no_list_and_the_error_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match="mpirun -x MASTER_ADDR=HOST"):
        meeting(OPEN_MPI | {"OMPI_MCA_orte_default_hostfile": "/on/the/launcher"})


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ConfigError, match="MASTER_PORT"):
        meeting(TORCHRUN | {"MASTER_PORT": port})


def test_the_init_method_comes_before_all_variables() -> None:
    assert meeting(TORCHRUN, "tcp://[::1]:2000")[:2] == ("::1", 2000)
    assert str(meeting(SRUN, "file:///shared/new").file) == "/shared/new"


@pytest.mark.parametrize(
    "text", ["tcp://n1", "tcp://n1:x", "tcp://n1:99999", "file://host/x", "file:///", "env://", "n1:2000"]
)
def test_another_init_method_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tcp://HOST:PORT or file:///"):
        meeting(SRUN, text)
