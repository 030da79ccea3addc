"""What a person sees when something cannot go on."""

import errno
import sys

import pytest

from bert_pytorch.errors import ConfigError, InputError, explain_os_error, front_door
from tests.support.commands import run_python


def raising(error: BaseException):
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (75, 75), (1, 1)])
def test_what_main_returns_is_the_exit_code(value, code):
    assert front_door(lambda: value) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("run.json", ["one."]), 2),
        (InputError("text.txt: nothing in it."), 1),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.pt"), 1),
        (KeyboardInterrupt(), 1),
    ],
)
def test_an_error_that_a_person_can_cause_is_one_message(error, code, capsys):
    assert front_door(raising(error)) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert "Traceback" not in told.err
    assert len(told.err.splitlines()) == 1


def test_a_defect_of_our_own_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        front_door(lambda: 1 // 0)


def test_a_library_stopping_the_program_keeps_its_code():
    with pytest.raises(SystemExit) as stop:
        front_door(lambda: sys.exit(3))
    assert stop.value.code == 3


def test_one_problem_stands_beside_the_place_and_several_stand_below_it():
    assert str(ConfigError("run.json", ["wrong."])) == "run.json: wrong."
    assert str(ConfigError("run.json", ["wrong.", "worse."])) == "run.json: \n  - wrong.\n  - worse."


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.ENOENT, "no such file"),
        (errno.EISDIR, "it is a folder"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_system_refused_is_said_with_the_path(number, words):
    message = explain_os_error(OSError(number, "Input/output error", "/data/a.txt"))
    assert message.startswith("/data/a.txt: ")
    assert words in message
    assert message.endswith(".")


def test_a_reader_that_goes_away_ends_the_program_silently():
    code = "import sys; from bert_pytorch.errors import front_door\n"
    code += "def main():\n    for line in range(100000): print(line)\nsys.exit(front_door(main))"
    result = run_python("-c", f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {code!r}], "
        "stdout=subprocess.PIPE, stderr=subprocess.PIPE); p.stdout.readline(); p.stdout.close(); "
        "print(p.stderr.read().decode(), p.wait())")  # fmt: skip
    assert result.stdout.split() == ["1"], result
