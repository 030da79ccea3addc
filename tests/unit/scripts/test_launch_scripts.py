"""The launch scripts as text: what shellcheck and the rules of this folder say."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.data import REPOSITORY

LAUNCH = REPOSITORY / "scripts" / "launch"
SCRIPTS = sorted(path for path in LAUNCH.iterdir() if path.is_file())


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed (apt: shellcheck)")
def test_shellcheck_finds_nothing() -> None:
    of_shells = [path for path in SCRIPTS if path.suffix != ".py"]
    done = subprocess.run(["shellcheck", "-x", *of_shells], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_shell_text_is_made_of_arguments(path: Path) -> None:
    words = path.read_text(encoding="utf-8").split()
    assert not {"eval", "$*", '"$*"', "bash -c"} & set(words)


@pytest.mark.parametrize("name", ["run_pretraining.sbatch", "run_pretraining.cobalt"])
def test_the_old_spellings_are_the_same_scripts(name: str) -> None:
    assert (REPOSITORY / "scripts" / name).samefile(LAUNCH / name)
