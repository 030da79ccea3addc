"""Real processes: exit codes come up, signals go down once, nobody is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bert_pytorch.errors import BertPytorchError
from bert_pytorch.launch import leaving
from bert_pytorch.launch.commands import NODE_PROGRAM
from bert_pytorch.launch.running import Command, Stopping, order_for_node, run_commands

WAITS = (
    "import pathlib, signal, sys, time\n"
    "def end(number, frame): pathlib.Path(sys.argv[1]).open('a').write(f'{number} '); time.sleep(0.3); sys.exit(7)\n"
    "signal.signal(signal.SIGTERM, end); signal.signal(signal.SIGUSR1, end)\n"
    "pathlib.Path(sys.argv[1]).open('a').write('began ')\n"
    "time.sleep(60)\n"
)


def command(code: str, *words: str, name: str = "one", stop: signal.Signals = signal.SIGTERM) -> Command:
    return Command(name, [sys.executable, "-c", code, *words], stop)


def over_pipe(code: str, *words: str, name: str = "node") -> Command:
    order = order_for_node([sys.executable, "-c", code, *words], Path.cwd(), os.environ)
    return Command(name, [sys.executable, str(NODE_PROGRAM)], signal.SIGTERM, order)


@pytest.mark.parametrize(
    ("code", "expected"), [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
@pytest.mark.parametrize("make", [command, over_pipe])
def test_exit_codes_travel(make: object, code: str, expected: int) -> None:
    assert run_commands([make(code)], Stopping(), 5) == expected  # type: ignore[operator]


def test_the_failure_of_one_ends_the_others(tmp_path: Path) -> None:
    note = tmp_path / "note"
    wait_then_fail = (
        f"import pathlib, time\nwhile not pathlib.Path({str(note)!r}).exists(): time.sleep(0.05)\nraise SystemExit(5)"
    )
    begun = time.monotonic()
    code = run_commands([over_pipe(WAITS, str(note), name="a"), command(wait_then_fail, name="b")], Stopping(), 0.5)
    assert code == 5
    assert time.monotonic() - begun < 20
    assert note.read_text() == f"began {signal.SIGTERM:d} "


@pytest.mark.parametrize("make", [command, over_pipe])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_the_command_may_take_its_time(
    make: object, number: int, tmp_path: Path
) -> None:
    note = tmp_path / "note"

    def send() -> None:
        while not note.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    stopping = Stopping()
    threading.Thread(target=send, daemon=True).start()
    with stopping.listening():
        assert run_commands([make(WAITS, str(note))], stopping, 20) == 7  # type: ignore[operator]
    assert note.read_text() == f"began {signal.SIGTERM:d} "


def test_what_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    note = tmp_path / "note"
    stubborn = (
        "import os, pathlib, signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\nif child: pathlib.Path(sys.argv[1]).write_text(str(child))\ntime.sleep(60)\n"
    )
    stopping = Stopping()

    def insist() -> None:
        while not note.exists():
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    threading.Thread(target=insist, daemon=True).start()
    with stopping.listening():
        assert run_commands([command(stubborn, str(note))], stopping, 60) == 1
    deadline = time.monotonic() + 5
    while (
        Path(f"/proc/{note.read_text()}").exists() and " Z " not in Path(f"/proc/{note.read_text()}/stat").read_text()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def waiting_node(note: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a node's program whose command has begun, and waits."""
    one = over_pipe(WAITS, str(note))
    with subprocess.Popen(one.argv, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(f"{one.order}\n")
        process.stdin.flush()
        wait_for(note, "began ")
        yield process


def test_a_node_whose_launcher_is_gone_asks_its_command_to_stop(tmp_path: Path) -> None:
    with waiting_node(tmp_path / "note") as node:
        assert node.stdin is not None
        node.stdin.close()
        assert node.wait(20) == 7


def test_variables_of_this_machine_stay_here() -> None:
    order = order_for_node(
        ["x"], Path("/"), {"HOSTNAME": "n1", "SSH_AUTH_SOCK": "x", "OMP_NUM_THREADS": "4", "PATH": "p"}
    )
    assert '"environment": {"OMP_NUM_THREADS": "4", "PATH": "p"}' in order


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(BertPytorchError, match="no-such-srun"):
        run_commands([Command("x", ["no-such-srun"], signal.SIGTERM)], Stopping(), 1)


def test_a_machine_that_goes_away_asks_its_commands_to_stop_once_and_waits_for_them(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with waiting_node(note) as node:
        assert node.pid in set(leaving.commands(leaving.PROCESSES))
        (tmp_path / "proc").mkdir()  # of this test alone: others have commands of their own on this machine
        (tmp_path / "proc" / str(node.pid)).symlink_to(leaving.PROCESSES / str(node.pid))
        leave = threading.Thread(target=leaving.main, args=(tmp_path / "proc",))
        leave.start()
        wait_for(note, f"began {signal.SIGTERM:d} ")
        node.stdin.write("SIGTERM\n")  # as the launcher does, which ends with the same job
        node.stdin.flush()
        assert node.wait(20) == 7
        leave.join(20)
        assert not leave.is_alive()
    assert note.read_text() == f"began {signal.SIGTERM:d} "


def wait_for(note: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while not note.exists() or note.read_text() != text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
