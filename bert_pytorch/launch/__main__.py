"""`python -m bert_pytorch.launch`: what `scripts/launch/` calls once the environment is set up."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bert_pytorch.errors import EXIT_DONE, EXIT_STOPPED, front_door
from bert_pytorch.launch.allocation import Allocation, cpus_of_node, gpus_of_this_machine, read_allocation
from bert_pytorch.launch.commands import NODE_PROGRAM, network_variables, ssh_words, starting_words, torchrun_words
from bert_pytorch.launch.config import LaunchConfig, Request, read_request, say
from bert_pytorch.launch.kubernetes import main as kubernetes
from bert_pytorch.launch.phases import output_folder, read_ends, words_of_phase
from bert_pytorch.launch.running import Command, Stopping, order_for_node, run_commands
from bert_pytorch.runtime.nodes import same_machine


def main() -> int:
    """Run the launcher; returns its exit code."""
    if sys.argv[1:2] == ["kubernetes"]:
        return kubernetes(sys.argv[2:])
    request = read_request(sys.argv[1:], os.environ)
    os.environ.update(network_variables(request.config.interface))
    allocation = read_allocation(
        request.config,
        os.environ,
        local_gpus=gpus_of_this_machine(),
        has_program=lambda name: shutil.which(name) is not None,
    )
    stopping = Stopping()
    with stopping.listening():
        if request.config.phase is None:
            return _run(request.config, allocation, request.script, request.words, stopping)
        return _run_phases(request, allocation, stopping)


def _run_phases(request: Request, allocation: Allocation, stopping: Stopping) -> int:
    """Run a phase, or both: the second only if the first one's `end` row says that it finished."""
    config = request.config
    code = EXIT_DONE
    for phase in ("1", "2") if config.phase == "both" else (str(config.phase),):
        words = words_of_phase(request.words, phase)
        code = _run(config, allocation, request.script, words, stopping)
        if code != EXIT_DONE or stopping.asked:
            break
        begins_next = config.phase == "both" and phase == "1" and not config.dry_run
        if begins_next and 1 not in read_ends(output_folder(words)).finished_phases:
            say("phase 1 has not finished (--steps, or no --output_dir): phase 2 does not begin")
            break
    return code


def _run(config: LaunchConfig, allocation: Allocation, script: Path, words: Sequence[str], stopping: Stopping) -> int:
    """Run the script once on all machines; what its `end` row says comes before torchrun's exit code, which is 1."""
    commands = _commands(config, allocation, [str(script), *words])
    if config.dry_run:
        for command in commands:
            sys.stdout.write(shlex.join(command.argv) + "\n")
        if allocation.starter == "ssh":  # on_node.py is told what to run on its input
            sys.stdout.write("# each: " + shlex.join(torchrun_words(config, allocation, [str(script), *words])) + "\n")
        return EXIT_DONE
    where = f"{len(allocation.nodes)} machines ({allocation.starter})" if allocation.nodes else "this machine"
    say(f"{script.name} on {where}, {allocation.processes} process(es) on each; scheduler: {allocation.scheduler}")
    folder = output_folder(words)
    before = len(read_ends(folder).reasons)
    code = run_commands(commands, stopping, config.grace_seconds)
    reasons = read_ends(folder).reasons[before:]
    if not reasons or reasons[-1] not in ("signal", "time_limit"):
        return code
    say(f"stopped before its end ({reasons[-1]}); start again to continue")
    if config.requeue and allocation.scheduler == "SLURM":
        subprocess.run(["scontrol", "requeue", allocation.job], check=False)
    return EXIT_STOPPED


def _commands(config: LaunchConfig, allocation: Allocation, program: Sequence[str]) -> list[Command]:
    each = torchrun_words(config, allocation, program)
    if allocation.starter in ("here", "each"):
        return [Command("torchrun", each, signal.SIGTERM)]
    if allocation.starter == "ssh":
        orders = {
            node: order_for_node(each, Path.cwd(), {**os.environ, "BERT_PYTORCH_NODE": node})
            for node in allocation.nodes
        }
        return [Command(node, _reach(node), signal.SIGTERM, order) for node, order in orders.items()]
    words = starting_words(
        allocation,
        each,
        grace_seconds=config.grace_seconds,
        open_mpi=allocation.starter == "mpiexec" and _is_open_mpi(),
        cpus=cpus_of_node(os.environ),
        carried=tuple(network_variables(config.interface)),
    )
    return [Command(allocation.starter, words, signal.SIGUSR1)]


def _reach(node: str) -> list[str]:
    """Return how `on_node.py` is started: here without ssh, which a machine may not have a door to itself for."""
    if same_machine(node, os.uname().nodename):
        return [sys.executable, str(NODE_PROGRAM)]
    return ssh_words(node)


def _is_open_mpi() -> bool:
    done = subprocess.run(["mpiexec", "--version"], capture_output=True, text=True, check=False)
    return "Open MPI" in done.stdout or "OpenRTE" in done.stdout


if __name__ == "__main__":
    sys.exit(front_door(main))
