"""OpenSSH daemons of the test's own, a machine each under an address of the loopback, and an `ssh` that knows them."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.slurm import free_ports

MACHINES = ("127.0.0.1", "127.0.0.2")


def missing_programs() -> list[str]:
    """Return what is not installed of OpenSSH; Debian's packages are openssh-server and openssh-client."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [name for name in ("sshd", "ssh", "ssh-keygen") if shutil.which(name, path=path) is None]


@contextlib.contextmanager
def running_machines(folder: Path) -> Iterator[dict[str, str]]:
    """Start a daemon a machine and yield variables with a PATH whose `ssh` reaches them without a password."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    sshd, ssh = shutil.which("sshd", path=path), shutil.which("ssh")
    assert sshd is not None
    assert ssh is not None
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd separates its privileges
    client = [f"IdentityFile {folder / 'user'}", "StrictHostKeyChecking no", f"UserKnownHostsFile {folder / 'known'}"]
    with contextlib.ExitStack() as held:
        for machine, port in zip(MACHINES, free_ports(len(MACHINES)), strict=True):
            config = folder / f"sshd_{machine}"
            lines = [f"ListenAddress {machine}:{port}", f"HostKey {folder / 'host'}", "StrictModes no", "UsePAM no"]
            lines += [f"AuthorizedKeysFile {folder / 'user.pub'}", "PasswordAuthentication no", "PidFile none"]
            config.write_text("\n".join([*lines, ""]))
            daemon = held.enter_context(
                subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
            )
            held.callback(daemon.terminate)
            client += [f"Host {machine}", f"Port {port}"]
            _wait_for(machine, port)
        (folder / "ssh_config").write_text("\n".join([*client, ""]))
        programs = folder / "bin"
        programs.mkdir()
        (programs / "ssh").write_text(f'#!/bin/sh\nexec {ssh} -F "{folder / "ssh_config"}" "$@"\n')
        (programs / "ssh").chmod(0o755)
        yield {"PATH": f"{programs}:{os.environ['PATH']}"}


def _wait_for(machine: str, port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((machine, port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, f"sshd does not listen at {machine}:{port}"
            time.sleep(0.05)
        else:
            return
