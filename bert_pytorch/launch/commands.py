"""From an allocation to command lines: lists of words, never a text that a shell reads."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from bert_pytorch.launch.allocation import Allocation
from bert_pytorch.launch.config import LaunchConfig
from bert_pytorch.runtime.interfaces import GLOO, NCCL

ROLL_CALL = Path(__file__).with_name("roll_call.py")
NODE_PROGRAM = Path(__file__).with_name("on_node.py")
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
"""What torchrun passes on to its processes; SIGUSR1 is what srun and mpiexec pass on without ending the job."""


def torchrun_words(
    config: LaunchConfig, allocation: Allocation, program: Sequence[str], python: str = sys.executable
) -> list[str]:
    """Return the command that each machine runs.

    Args:
        config: the launcher's options.
        allocation: what the job has.
        program: the script and its options.
        python: the interpreter, at the same path on all machines.
    """
    # As variables, which a torch before 2.12 (Gaudi's) passes over; as options it would refuse them.
    variables = [f"PET_SIGNALS_TO_HANDLE={SIGNALS}", f"PET_SHUTDOWN_TIMEOUT={config.grace_seconds}"]
    words = ["env", *variables, python, "-m", "torch.distributed.run", f"--nproc_per_node={allocation.processes}"]
    if allocation.nodes:
        seconds = round(config.join_minutes * 60)
        meeting = f"{allocation.nodes[0]}:{allocation.port + 1}"
        words = [python, str(ROLL_CALL), meeting, str(seconds), ",".join(allocation.nodes), *words]
        words += [
            f"--nnodes={len(allocation.nodes)}",
            "--rdzv_backend=c10d",
            f"--rdzv_endpoint={allocation.nodes[0]}:{allocation.port}",
            f"--rdzv_id={allocation.job}",
            f"--rdzv_conf=join_timeout={max(seconds, 60)}",
        ]
    else:
        words.append("--standalone")  # a free port, so that several fit on one machine
    return [*words, f"--max_restarts={config.max_restarts}", *program]


def network_variables(interface: str | None) -> dict[str, str]:
    """Return the variables by which gloo and NCCL are told an interface; NCCL would take a bare name as a prefix."""
    return {} if interface is None else {GLOO: interface, NCCL: f"={interface}"}


def starting_words(
    allocation: Allocation,
    each: Sequence[str],
    *,
    grace_seconds: int,
    open_mpi: bool,
    cpus: str | None,
    carried: Sequence[str] = (),
) -> list[str]:
    """Return the one command by which srun or mpiexec starts `each` once on every machine.

    Args:
        allocation: what the job has; its `starter` is srun or mpiexec.
        each: the command of a machine.
        grace_seconds: how long SLURM lets the others go on when one has ended.
        open_mpi: whether mpiexec is Open MPI's; others take MPICH's options.
        cpus: processors of each machine under SLURM, which srun does not take from its job since SLURM 22.05.
        carried: variables that other machines must have; Open MPI alone carries none by itself.
    """
    count = str(len(allocation.nodes))
    if allocation.starter == "srun":
        words = ["srun", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"]
        # A machine that is done with stopping must not end one that still saves; one that failed must not leave others.
        words += ["--kill-on-bad-exit=0", f"--wait={grace_seconds}", f"--nodelist={','.join(allocation.nodes)}"]
        return [*words, *([f"--cpus-per-task={cpus}"] if cpus else []), *each]
    if open_mpi:
        words = ["mpiexec", "-np", count, "--host", ",".join(allocation.nodes), "--map-by", "ppr:1:node"]
        # It would bind torchrun, and with it all ranks of the machine, to one core or socket.
        return [*words, "--bind-to", "none", *(word for name in carried for word in ("-x", name)), *each]
    return ["mpiexec", "-n", count, "-ppn", "1", *each]


def ssh_words(node: str, python: str = sys.executable) -> list[str]:
    """Return the command that starts `on_node.py` on another machine; what it is to do follows on its input.

    Nothing of a person's reaches the remote shell but the interpreter's and this repository's paths, quoted.
    """
    remote = shlex.join([python, str(NODE_PROGRAM)])
    return ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=30", "-T", node, remote]
