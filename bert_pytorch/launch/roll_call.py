"""Waits on each machine until all of a job are there, then becomes the command; needs nothing but Python.

    python roll_call.py HOST:PORT SECONDS NODE1,NODE2,… COMMAND …

torchrun's own meeting ends with a traceback that names nobody.  Here each machine tells the first one its name; when
the time is over, all say which did not come.
"""

import contextlib
import os
import socket
import sys
import time
import zlib
from collections.abc import Sequence
from typing import NoReturn

LONGEST_LINE = 4096


def main(argv: Sequence[str]) -> NoReturn:
    """Meet the others and become the command; exit code 1 if they do not all come."""
    address, seconds, listed, *command = argv
    host, _, port = address.rpartition(":")
    nodes = listed.split(",")
    name = name_among(nodes)
    deadline = time.monotonic() + float(seconds)
    if name == nodes[0] or (name not in nodes and is_here(host)):
        problem = call_roll(int(port), nodes, deadline, seconds)
    else:
        problem = answer(host, int(port), f"{greeting_of(nodes)} {name}", deadline, seconds)
    if problem:
        sys.stderr.write(f"error: {name}: {problem}\n")
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606


def name_among(nodes: Sequence[str]) -> str:
    """Return this machine's name as the list spells it, where it does."""
    names = [os.environ.get("BERT_PYTORCH_NODE"), os.environ.get("SLURMD_NODENAME"), socket.gethostname()]
    known = [name for name in names if name]
    equal = [name for name in known if name in nodes]
    short = [node for name in known for node in nodes if first_part(node) == first_part(name)]
    return [*equal, *short, *known][0]


def first_part(name: str) -> str:
    """Return a name without its domain; an address is whole."""
    return name if name.replace(".", "").isdigit() else name.partition(".")[0]


def is_here(host: str) -> bool:
    """Whether an address is one of this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def call_roll(port: int, nodes: Sequence[str], deadline: float, seconds: str) -> str:
    """Wait on the first machine for the names of all others; return what is wrong, empty if nothing is."""
    joined = [nodes[0]]
    try:
        door = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        return f"cannot listen at port {port} ({error.strerror}). Choose another with --port."
    with contextlib.ExitStack() as held:
        held.enter_context(door)
        guests: list[socket.socket] = []
        while len(joined) < len(nodes) and (left := deadline - time.monotonic()) > 0:
            door.settimeout(left)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                guest = held.enter_context(door.accept()[0])
                guest.settimeout(5)
                greeting, _, name = guest.makefile("r").readline(LONGEST_LINE).strip().partition(" ")
                if greeting == greeting_of(nodes) and name not in joined:
                    joined.append(name)
                    guests.append(guest)
        problem = "" if len(joined) == len(nodes) else missing(joined, nodes, seconds)
        for guest in guests:
            with contextlib.suppress(OSError):
                guest.sendall(f"{problem}\n".encode())
    return problem


def answer(host: str, port: int, words: str, deadline: float, seconds: str) -> str:
    """Greet the first machine by name and wait for its word; return what is wrong, empty if nothing is."""
    reason = "nobody answered"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5) as call:
                call.sendall(f"{words}\n".encode())
                call.settimeout(
                    max(deadline - time.monotonic(), 0) + 10
                )  # it tells who is missing when its time is over
                line = call.makefile("r").readline()
            if line:
                return line.strip()
        except OSError as error:
            reason = error.strerror or str(error)
        time.sleep(0.2)
    return (
        f"did not reach {host}:{port} within {seconds} s ({reason}). Look whether the first machine started, "
        "and whether this one may connect to it."
    )


def greeting_of(nodes: Sequence[str]) -> str:
    """Return a word that tells this job's machines from strays and other jobs that come to the same port."""
    return f"{zlib.crc32(','.join(nodes).encode()):08x}"


def missing(joined: Sequence[str], nodes: Sequence[str], seconds: str) -> str:
    """Return the message for a roll with gaps."""
    absent = [node for node in nodes if node not in joined]
    known = len(absent) + len(joined) == len(nodes)  # else machines were counted, or have other names here
    told, names = ("missing", absent) if known else ("these did", joined)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (
        f"{len(joined)} of {len(nodes)} machines joined within {seconds} s; {told}: {', '.join(names[:20])}{more}. "
        "Look in their logs for why; --join_minutes waits longer."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
