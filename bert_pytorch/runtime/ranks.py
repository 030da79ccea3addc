"""Which process of how many this one is, and where they meet: read from what started it.

Pure functions of an environment; no torch.  Who started a process is told by its variables, the innermost starter
first: torchrun under srun is torchrun.

Sources of the names: torch.distributed.run ("Environment Variables"); Kubeflow's training operator (PyTorchJob);
Open MPI's FAQ 'Running MPI jobs'; MPICH's Hydra and Cray PALS's `mpiexec` manuals; SLURM's `srun` manual.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from bert_pytorch.errors import ConfigError
from bert_pytorch.runtime.nodes import expand_counts, expand_node_list, read_node_file

Starter = Literal["nothing", "torchrun", "PyTorchJob", "Open MPI", "MPICH", "SLURM", "--init_method"]

FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports of meetings that nobody named lie below the range from which Linux takes those of outgoing connections."""


class Ranks(NamedTuple):
    """One process's place among all of a run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Its number on its machine."""
    starter: Starter = "nothing"


class Meeting(NamedTuple):
    """Where the processes of a run meet."""

    host: str = ""
    """Of rank 0; empty with a file."""
    port: int = 0
    file: Path | None = None
    """On a file system that all machines share."""
    hosted_by_agent: bool = False
    """Whether torchrun's agent keeps the store, so that rank 0 must not."""
    hosts: tuple[str, ...] = ()
    """Machines of the job, where a list says so."""


class _Names(NamedTuple):
    """Variables by which a starter tells ranks; the first that is there counts."""

    rank: tuple[str, ...]
    size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...] = ()
    job: tuple[str, ...] = ()


_MPI: dict[Starter, _Names] = {
    "Open MPI": _Names(
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        ("OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE"),
    ),
    # PMI variables stand under SLURM too (srun --mpi=pmi2), without local ranks; under Hydra SLURM's count its proxies.
    "MPICH": _Names(
        ("PMI_RANK", "PALS_RANKID"),
        ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE"),
        ("PALS_APID",),
    ),
    "SLURM": _Names(("SLURM_PROCID",), ("SLURM_STEP_NUM_TASKS",), ("SLURM_LOCALID",)),
}
_JOBS = ("SLURM_JOB_ID", "PBS_JOBID", "COBALT_JOBID", "JOB_ID")


def discover_ranks(environment: Mapping[str, str], init_method: str | None = None) -> Ranks:
    """Say which rank this process is.

    Args:
        environment: variables of the process.
        init_method: `--init_method`; `?rank=R&world_size=N` in it counts before all variables.

    Raises:
        ConfigError: if only some variables of a starter are set, or they contradict each other.
    """
    if init_method is not None and (given := _query(init_method)):
        local = given.get("local_rank") or environment.get("LOCAL_RANK") or "0"
        words = {"rank": given.get("rank"), "world_size": given.get("world_size"), "local_rank": local}
        return _ranks("--init_method", words, "write ?rank=R&world_size=N, different in R for each process")
    if "RANK" in environment or "WORLD_SIZE" in environment:
        starter: Starter = "torchrun"
        local_rank = environment.get("LOCAL_RANK")
        if local_rank is None and "KUBERNETES_SERVICE_HOST" in environment:
            starter, local_rank = "PyTorchJob", "0"  # one process a Pod, and the operator does not number it
        words = {"RANK": environment.get("RANK"), "WORLD_SIZE": environment.get("WORLD_SIZE"), "LOCAL_RANK": local_rank}
        return _ranks(starter, words, "start the run with torchrun, which sets all of them")
    for starter, names in _MPI.items():
        if starter == "SLURM" and "SLURM_STEP_ID" not in environment:
            continue  # a batch script has SLURM_PROCID too, and is one process
        if _first(environment, names.rank) is None or (starter == "MPICH" and "PMI_SIZE" not in environment):
            continue
        words = {variables[0]: _first(environment, variables) for variables in names[:3]}
        return _ranks(starter, words, f"{starter} sets all of them")
    return Ranks()


def ranks_on_this_machine(environment: Mapping[str, str], ranks: Ranks) -> int | None:
    """Return how many of the ranks run on this machine, None where nothing tells.

    Args:
        environment: variables of the process.
        ranks: of `discover_ranks`.
    """
    if ranks.starter in ("nothing", "PyTorchJob"):
        return 1
    if ranks.starter == "SLURM":
        counts, node = expand_counts(environment.get("SLURM_STEP_TASKS_PER_NODE", "")), environment.get("SLURM_NODEID")
        return counts[int(node)] if node is not None and node.isdecimal() and int(node) < len(counts) else None
    names = _MPI.get(ranks.starter)
    value = _first(environment, ("LOCAL_WORLD_SIZE",) if names is None else names.local_size)
    return int(value) if value is not None and value.isdecimal() and int(value) > ranks.local_rank else None


def find_meeting(
    environment: Mapping[str, str],
    ranks: Ranks,
    init_method: str | None = None,
    read: Callable[[str], str] = lambda path: Path(path).read_text(encoding="utf-8"),
) -> Meeting:
    """Say where the processes of a run of several meet.

    `--init_method` counts first, then MASTER_ADDR and MASTER_PORT, then the first machine of the job's node list and a
    port that follows from the job's number.

    Args:
        environment: variables of the process.
        ranks: of `discover_ranks`.
        init_method: `--init_method`: `tcp://HOST:PORT` or `file:///shared/new_file`.
        read: gives the text of a node file.

    Raises:
        ConfigError: if nothing tells where rank 0 is.
    """
    hosts = job_hosts(environment, read)
    if init_method is not None:
        return _parsed(init_method)._replace(hosts=hosts)
    agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host = environment.get("MASTER_ADDR") or _first_host(environment, ranks, hosts)
    port = environment.get("MASTER_PORT")
    if ranks.starter in ("torchrun", "PyTorchJob") and port is None:
        raise ConfigError("environment", [f"MASTER_PORT is missing; {ranks.starter} sets it."])
    number = int(port) if port is not None and port.isdecimal() else _port_of(environment, ranks)
    if port is not None and not (port.isdecimal() and 0 < number < 65536):
        raise ConfigError("environment", [f"found MASTER_PORT={port!r}, wanted a number from 1 to 65535."])
    return Meeting(host, number, None, agent, hosts)


def job_hosts(environment: Mapping[str, str], read: Callable[[str], str]) -> tuple[str, ...]:
    """Return the machines of the scheduler's job, empty where there is no list."""
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if environment.get(name):
            return tuple(expand_node_list(environment[name]))
    for name in ("COBALT_NODEFILE", "PBS_NODEFILE", "PE_HOSTFILE", "OMPI_MCA_orte_default_hostfile"):
        if environment.get(name):
            try:
                return tuple(read_node_file(read(environment[name]).splitlines()))
            except OSError:
                continue  # such files lie on a job's first machine only
    return ()


def job_number(environment: Mapping[str, str], names: tuple[str, ...] = _JOBS) -> str | None:
    """Return what tells this job from others that run now, None without a scheduler."""
    return _first(environment, names)


def port_of_job(job: str) -> int:
    """Return a port that all machines of a job compute alike, seldom that of another job on them."""
    return FIRST_PORT + zlib.crc32(job.encode()) % NUM_PORTS


def _ranks(starter: Starter, words: Mapping[str, str | None], advice: str) -> Ranks:
    where = "--init_method" if starter == "--init_method" else "environment"
    found = ", ".join(f"{name}={value}" for name, value in words.items() if value is not None)
    missing = [name for name, value in words.items() if value is None]
    if missing:
        raise ConfigError(where, [f"found {found} but no {', '.join(missing)}; {advice}."])
    values = [value for value in words.values() if value is not None]
    if not all(value.isdecimal() for value in values):
        raise ConfigError(where, [f"found {found}, wanted whole numbers; {advice}."])
    rank, size, local_rank = map(int, values)
    if not rank < size:
        raise ConfigError(where, [f"found {found}: the rank is outside 0 to {size - 1}; {advice}."])
    return Ranks(rank, size, local_rank, starter)


def _first_host(environment: Mapping[str, str], ranks: Ranks, hosts: tuple[str, ...]) -> str:
    names = _MPI.get(ranks.starter)
    if names is not None and _first(environment, names.local_size) == str(ranks.size):
        return "127.0.0.1"
    if environment.get("SLURM_STEP_NUM_NODES") == "1":
        return "127.0.0.1"
    if hosts:
        return hosts[0]
    raise ConfigError(
        "environment",
        [
            f"MASTER_ADDR is missing and there is no node list: rank {ranks.rank} of {ranks.size} (started by "
            f"{ranks.starter}) does not know where rank 0 is. Set MASTER_ADDR for all ranks (mpirun -x "
            "MASTER_ADDR=HOST), or add --init_method tcp://HOST:PORT."
        ],
    )


def _port_of(environment: Mapping[str, str], ranks: Ranks) -> int:
    names = _MPI.get(ranks.starter)
    job = job_number(environment, (names.job if names is not None else ()) + _JOBS)
    return port_of_job(f"{job} {environment.get('SLURM_STEP_ID', '')}") if job is not None else FIRST_PORT


def _parsed(init_method: str) -> Meeting:
    parts = urlsplit(init_method)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme == "tcp" and parts.hostname and port:
        return Meeting(parts.hostname, port)
    if parts.scheme == "file" and not parts.netloc and parts.path not in ("", "/"):
        return Meeting(file=Path(parts.path))
    raise ConfigError("--init_method", [f"found {init_method!r}, wanted tcp://HOST:PORT or file:///shared/new_file."])


def _query(init_method: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(init_method).query).items()}


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
