"""What a scheduler gave this job: machines, processes on each, a number."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from bert_pytorch.errors import ConfigError
from bert_pytorch.launch.config import LaunchConfig
from bert_pytorch.runtime.nodes import expand_counts, expand_node_list
from bert_pytorch.runtime.ranks import FIRST_PORT, job_hosts, job_number, port_of_job

Starter = Literal["here", "each", "srun", "mpiexec", "ssh"]

_SCHEDULERS = (("SLURM_JOB_ID", "SLURM"), ("COBALT_JOBID", "Cobalt"), ("PBS_JOBID", "PBS"), ("PE_HOSTFILE", "SGE"))


class Allocation(NamedTuple):
    """The machines of a job and how to use them."""

    scheduler: str
    nodes: tuple[str, ...]
    """In order; the ranks meet at the first.  Empty: this machine alone."""
    job: str
    """Tells this job's meeting from those of others."""
    port: int
    processes: str
    """On each machine, as torchrun's --nproc_per_node takes it."""
    starter: Starter


def read_allocation(
    config: LaunchConfig,
    environment: Mapping[str, str],
    *,
    local_gpus: int,
    has_program: Callable[[str], bool],
    read: Callable[[str], str] | None = None,
) -> Allocation:
    """Say what the job has, from the scheduler's variables and the launcher's options.

    Args:
        config: the launcher's options.
        environment: variables of the process.
        local_gpus: GPUs of this machine.
        has_program: whether a program is in PATH.
        read: gives the text of a node file.

    Raises:
        ConfigError: if the launcher itself was started several times, or the list of machines is none.
    """
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        found = environment["SLURM_STEP_NUM_TASKS"]
        problem = f"srun started {found} of it; start it once (sbatch, salloc): it starts srun itself."
        raise ConfigError("launch", [problem])
    scheduler = next((name for variable, name in _SCHEDULERS if environment.get(variable)), "none")
    nodes = tuple(expand_node_list(config.nodes)) if config.nodes else job_hosts(environment, read or _read_node_file)
    if config.start_with == "each" and not nodes:
        nodes = _counted_machines(environment)
    job = job_number(environment)
    if len(nodes) > 1 and job is None:
        job = "-".join(nodes)
    port = config.port or (port_of_job(job) if job is not None else FIRST_PORT)
    starter = _starter(config, scheduler, nodes, has_program)
    processes = config.nproc_per_node or _processes(environment, local_gpus)
    return Allocation(scheduler, nodes if len(nodes) > 1 else (), job or "alone", port, processes, starter)


def cpus_of_node(environment: Mapping[str, str]) -> str | None:
    """Return how many processors SLURM gave the job on each of its machines, of unequal ones the fewest.

    A step of one task a machine asks for them, or SLURM binds the task, and with it all ranks there, to a single one.
    """
    counts = expand_counts(environment.get("SLURM_JOB_CPUS_PER_NODE", ""))
    return str(min(counts)) if counts else environment.get("SLURM_CPUS_PER_TASK")


def gpus_of_this_machine(devices: Path = Path("/dev")) -> int:
    """Count NVIDIA's device files; the launcher knows no torch."""
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in devices.glob("nvidia[0-9]*"))


def _read_node_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        problem = (
            f"{path}: cannot be read ({error.strerror}); the scheduler's variables say that it lists the machines."
        )
        raise ConfigError("node file", [problem]) from None


def _counted_machines(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Name the machines of a job that are only counted: the first by its address, as ranks meet there."""
    found = {name: environment.get(name, "") for name in ("WORLD_SIZE", "MASTER_ADDR")}
    if not (found["WORLD_SIZE"].isdecimal() and int(found["WORLD_SIZE"]) and found["MASTER_ADDR"]):
        told = ", ".join(f"{name}={value!r}" for name, value in found.items())
        problem = f"found {told}, wanted the number of machines and the address of the first; or name all with --nodes."
        raise ConfigError("--start_with each", [problem])
    return (found["MASTER_ADDR"], *(f"machine-{number}" for number in range(1, int(found["WORLD_SIZE"]))))


def _starter(
    config: LaunchConfig, scheduler: str, nodes: tuple[str, ...], has_program: Callable[[str], bool]
) -> Starter:
    if len(nodes) < 2:
        return "here"
    if config.start_with != "auto":
        return config.start_with
    if scheduler == "SLURM":
        return "srun"
    return "mpiexec" if scheduler == "PBS" and has_program("mpiexec") else "ssh"


def _processes(environment: Mapping[str, str], local_gpus: int) -> str:
    """Return one process a GPU: as the scheduler counts them, else as torchrun does on each machine."""
    for name in ("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE"):
        count = environment.get(name, "").rpartition(":")[2]  # also a100:4
        if count.isdecimal() and int(count) > 0:
            return str(int(count))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if local_gpus and visible != "":
        return "gpu"
    return "1"
