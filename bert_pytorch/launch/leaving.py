"""What a machine whose commands came by ssh does before it goes away; needs nothing but Python, and Linux's /proc.

sshd takes its sessions with it when it ends.  So this asks every `on_node.py` of this machine to stop, and waits until
all have: the preStop hook of an MPIJob's workers.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

PROCESSES = Path("/proc")
PROGRAM = "on_node.py"
POLL_SECONDS = 0.5


def main(processes: Path = PROCESSES) -> None:
    """Ask, and wait; Kubernetes ends both after the Pod's grace."""
    asked: set[int] = set()
    while running := set(commands(processes)):
        for process in running - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        asked |= running
        time.sleep(POLL_SECONDS)


def commands(processes: Path) -> Iterator[int]:
    """Yield the numbers of the Python processes here that run `on_node.py`, not of the shells that started them."""
    for folder in processes.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if words[1:] and words[1].rpartition(b"/")[2] == PROGRAM.encode():
                    yield int(folder.name)


if __name__ == "__main__":
    main()
