"""A SLURM of the test's own on this machine: munged, a controller and two virtual nodes, all in one folder."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
NODES = ("127.0.0.1", "127.0.0.2")
"""Names of the nodes: addresses resolve without a line in /etc/hosts."""


def missing_programs() -> list[str]:
    """Return what is not installed of SLURM; Debian's packages are slurm-wlm and munge."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


class Slurm:
    """Clients of a running SLURM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        }

    def call(self, *words: str | Path, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a client to its end."""
        return subprocess.run(
            list(map(str, words)),
            env=self.variables | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def field(self, job: str, name: str) -> str:
        """Return a field of `scontrol show job`."""
        shown = self.call("scontrol", "show", "job", "--oneliner", job).stdout
        return next((word.partition("=")[2] for word in shown.split() if word.startswith(f"{name}=")), "")

    def wait_for(self, job: str, states: Sequence[str], seconds: float) -> str:
        """Wait until a job is in one of the states."""
        deadline = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) not in states:
            assert time.monotonic() < deadline, f"job {job} is {state or 'unknown'} after {seconds} s, wanted {states}"
            time.sleep(0.2)
        return state


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Start a SLURM in `folder`, wait until its nodes are idle, end it on leaving."""
    ports = free_ports(len(NODES) + 1)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    for name in ("state", *NODES):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(configuration(folder, ports))
    slurm = Slurm(folder)
    munge = [f"--{kind}-file={folder / f'munge.{kind}'}" for kind in ("key", "pid", "log", "seed")]
    with contextlib.ExitStack() as held:
        held.enter_context(daemon(["munged", "--foreground", "--force", f"--socket={folder / 'munge'}", *munge], slurm))
        held.enter_context(daemon(["slurmctld", "-D", "-c"], slurm))
        for node in NODES:
            held.enter_context(daemon(["slurmd", "-D", "-N", node], slurm))
        deadline = time.monotonic() + 60
        while (states := slurm.call("sinfo", "-h", "-N", "-o", "%T").stdout.split()) != ["idle", "idle"]:
            logs = "".join(path.read_text() for path in folder.glob("*.out"))
            assert time.monotonic() < deadline, f"nodes are {states} after 60 s\n{logs}"
            time.sleep(0.2)
        try:
            yield slurm
        finally:
            end_jobs(slurm)  # a failed test's would go on without the daemons


def end_jobs(slurm: Slurm) -> None:
    """Kill what is left in the queue, and wait until it is gone."""
    deadline = time.monotonic() + 30
    while (jobs := slurm.call("squeue", "-h", "-o", "%A").stdout.split()) and time.monotonic() < deadline:
        slurm.call("scancel", "--full", "--signal=KILL", *jobs)
        slurm.call("scancel", *jobs)  # those that have not begun
        time.sleep(0.5)


@contextlib.contextmanager
def daemon(words: Sequence[str], slurm: Slurm) -> Iterator[None]:
    """Run a program until leaving; what it prints goes to a file of its name."""
    with (slurm.folder / f"{words[0]}-{words[-1].rpartition('/')[2]}.out").open("wb") as log:
        path = shutil.which(words[0], path=slurm.variables["PATH"])
        assert path is not None
        process = subprocess.Popen([path, *words[1:]], env=slurm.variables, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def configuration(folder: Path, ports: Sequence[int]) -> str:
    """Return slurm.conf for nodes that are all this machine."""
    host = socket.gethostname().partition(".")[0]
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    values: Mapping[str, object] = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": ports[0],
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder / 'munge'}",
        "CredType": "cred/munge",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "ReturnToService": 2,
        "StateSaveLocation": folder / "state",
        "SlurmdSpoolDir": folder / "%n",
        "SlurmdPidFile": folder / "slurmd.%n.pid",
        "SlurmctldPidFile": folder / "slurmctld.pid",
        "SlurmdLogFile": folder / "slurmd.%n.log",
        "SlurmctldLogFile": folder / "slurmctld.log",
        "KillWait": 30,
        "SchedulerParameters": "sched_interval=1,batch_sched_delay=0",
        "MpiDefault": "none",
    }
    lines = [f"{name}={value}" for name, value in values.items()]
    lines += [
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1 RealMemory=1000 State=UNKNOWN"
        for node, port in zip(NODES, ports[1:], strict=True)
    ]
    return "\n".join([*lines, f"PartitionName=p Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP", ""])


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at now."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
