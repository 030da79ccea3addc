"""torchrun's agents as separate programs, each of which stands for a machine that may be lost."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.runs import started


def agent_command(port: int, program: Sequence[str], *, machines: int = 2, processes: int = 1) -> list[str]:
    """Return torchrun's command for one of several machines that meet at a port of this one.

    Args:
        port: of the meeting, which the agent that comes first hosts.
        program: what each process runs, after the interpreter.
        machines: agents.
        processes: of this agent.
    """
    return [
        sys.executable, "-m", "torch.distributed.run", f"--nnodes={machines}", f"--nproc_per_node={processes}",
        "--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", f"--rdzv_id=job{port}", "--max_restarts=3",
        "--rdzv_conf=keep_alive_interval=1,keep_alive_max_attempt=4",  # an agent that is silent for 4 s is lost
        *program,
    ]  # fmt: skip


OWN_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""By default an agent that keeps the ranks' store tells its address in the first round only: one that comes later waits
for it a minute and fails (torch 2.13, elastic/rendezvous/dynamic_rendezvous.py, `next_rendezvous`)."""


@contextlib.contextmanager
def started_agent(command: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start an agent; it and its processes are ended on leaving."""
    with started(command, log, **OWN_STORE) as agent:
        try:
            yield agent
        finally:
            lose(agent)


def lose(agent: "subprocess.Popen[bytes]") -> None:
    """Kill an agent and its processes, which have sessions of their own, as a machine that loses power does."""
    children = [] if agent.poll() is not None else children_of(agent.pid)
    for pid in (agent.pid, *children):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found
