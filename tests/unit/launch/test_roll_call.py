"""Machines that wait for each other: a process each, on addresses of the loopback."""

import contextlib
import socket
import subprocess
import sys
import time

import pytest

from bert_pytorch.launch import roll_call
from bert_pytorch.launch.commands import ROLL_CALL
from tests.support.slurm import free_ports


def machine(name: str, port: int, seconds: float, nodes: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "print('began')"]
    return subprocess.Popen(
        [sys.executable, ROLL_CALL, f"127.0.0.1:{port}", str(seconds), nodes, *command],
        env={"BERT_PYTORCH_NODE": name}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def outcome(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_all_begin_when_the_last_has_come() -> None:
    (port,) = free_ports(1)
    others = [machine(name, port, 30, "a,b,c") for name in ("b", "c")]
    time.sleep(0.5)
    assert all(process.poll() is None for process in others)
    for process in [*others, machine("a", port, 30, "a,b,c")]:
        assert outcome(process) == (0, "began\n", "")


def test_all_say_who_is_missing_when_the_time_is_over() -> None:
    (port,) = free_ports(1)
    for process in [machine(name, port, 2, "a,b,c,d") for name in ("a", "c")]:
        code, out, err = outcome(process)
        assert (code, out) == (1, "")
        assert "2 of 4 machines joined within 2 s; missing: b, d." in err


def test_where_machines_are_only_counted_those_that_came_are_named() -> None:
    nodes = ["10.0.0.4", "machine-1", "machine-2"]
    told = roll_call.missing(["10.0.0.4", "pod-7"], nodes, "2")
    assert told.startswith("2 of 3 machines joined within 2 s; these did: 10.0.0.4, pod-7. ")
    assert "missing: machine-1, machine-2." in roll_call.missing(["10.0.0.4"], nodes, "2")


def test_who_does_not_find_the_first_machine_says_where_it_was() -> None:
    (port,) = free_ports(1)
    code, _, err = outcome(machine("b", port, 0.5, "a,b"))
    assert code == 1
    assert f"b: did not reach 127.0.0.1:{port} within 0.5 s" in err


def test_strays_are_not_counted() -> None:
    (port,) = free_ports(1)
    first = machine("a", port, 3, "a,b")
    for words in (b"GET / HTTP/1.1\n", b"\xff\xfe\n", b"00000000 b\n", b""):
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as stray:
                stray.sendall(words)
                break
    assert "1 of 2 machines joined" in outcome(first)[2]


@pytest.mark.parametrize(
    ("known", "name"),
    [("n2", "n2"), ("n2.cluster", "n2"), ("m2", "m2.cluster"), ("elsewhere", "elsewhere"), ("127.0.0.2", "127.0.0.2")],
)
def test_a_machine_finds_itself_in_the_list(known: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERT_PYTORCH_NODE", known)
    assert roll_call.name_among(["n1", "n2", "m2.cluster", "127.0.0.1", "127.0.0.2"]) == name
