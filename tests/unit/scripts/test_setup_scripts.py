"""Set-up on a bare clone: what `scripts/lib` does to make, complete, repair and leave alone an environment.

The repository of these tests is a copy with empty requirement files, so that nothing is downloaded.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.commands import Completed, run
from tests.support.data import REPOSITORY

STATE = Path(".venv") / ".bert_pytorch"
BARE = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
SETUP = (
    'source "$1/scripts/lib/environment.sh"; use_environment running; '
    'echo "$PYTHON"; python -c "import sys; print(sys.prefix)"'
)


class Bare(NamedTuple):
    """A repository that was set up once, and how that went."""

    folder: Path
    first: Completed


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    """Set up a bare clone whose name has a space, and whose packages are the test's own."""
    folder = tmp_path_factory.mktemp("finished") / "a clone"
    shutil.copytree(REPOSITORY / "scripts", folder / "scripts")
    write_wheel(folder.parent / "wheels", "torch", "2.13.0")
    write_wheel(folder.parent / "wheels", "harmless", "1.0")
    (folder / "requirements-torch.txt").write_text("torch==2.13.0\n")
    (folder / "requirements.txt").write_text("harmless==1.0  # a package\n")
    return Bare(folder, set_up(folder))


@pytest.fixture
def repository(finished: Bare, tmp_path: Path) -> Path:
    """Copy the finished repository, with its `.venv` as if it had been made there."""
    folder = tmp_path / "a clone"
    shutil.copytree(finished.folder.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    state = folder / STATE
    state.write_text(state.read_text().replace(str(finished.folder), str(folder)))
    return folder


def require_another(repository: Path) -> None:
    """Add a requirement, as an update of the repository does."""
    write_wheel(repository.parent / "wheels", "another", "2.0")
    (repository / "requirements.txt").write_text("harmless==1.0\nanother==2.0\n")


def bare_copy(venv: Path, folder: Path) -> Path:
    """Copy a `.venv` to where it is somebody's own: without our state file and our packages."""
    shutil.copytree(venv, folder, symlinks=True)
    (folder / STATE.name).unlink()
    for path in folder.glob("lib/python3*/site-packages/*"):
        if path.name.startswith(("torch", "harmless")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder


def write_wheel(folder: Path, name: str, version: str) -> None:
    """Build the smallest wheel that pip installs: one module that says its version."""
    source = folder / f"{name}-source"
    metadata = source / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (source / f"{name}.py").write_text(f"__version__ = {version!r}\n")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    files = [f"{name}.py", *(f"{metadata.name}/{file}" for file in ("METADATA", "WHEEL", "RECORD"))]
    (metadata / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    archive = shutil.make_archive(str(folder / name), "zip", source)
    Path(archive).rename(folder / f"{name}-{version}-py3-none-any.whl")
    shutil.rmtree(source)


def set_up(repository: Path, **variables: str) -> Completed:
    """Run the set-up as from a bare shell: no environment active, no index but the test's wheels."""
    env = {
        "VIRTUAL_ENV": "",
        "CONDA_PREFIX": "",
        "PYTHONPATH": "",
        "BERT_PYTORCH_PYTHON": BARE,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(repository.parent / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
        "LC_ALL": "C",
    }
    return run(["bash", "-euo", "pipefail", "-c", SETUP, "set-up", str(repository)], cwd=Path("/"), env=env | variables)


def test_a_bare_clone_gets_a_venv_and_the_second_run_does_nothing(finished):
    repository, first = finished
    assert first.code == 0, first
    assert first.stdout.splitlines() == [str(repository / ".venv/bin/python"), str(repository / ".venv")]
    assert "installing torch 2.13.0" in first.stderr
    assert "harmless" in first.stderr
    state = (repository / STATE).read_text()
    second = set_up(repository)
    assert (second.code, second.stdout, second.stderr) == (0, first.stdout, "")
    assert second.seconds < 5
    assert (repository / STATE).read_text() == state


def test_the_rest_of_a_killed_set_up_is_made_anew_once_by_two_at_once(repository):
    (repository / STATE).write_text("made here\ninstalling\n")
    (repository / ".venv" / "half-written").write_text("")
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: set_up(repository), range(2)))
    assert [result.code for result in results] == [0, 0], results
    assert sorted("unfinished" in result.stderr for result in results) == [False, True]
    assert not (repository / ".venv" / "half-written").exists()
    assert set_up(repository).stderr == ""


def test_a_moved_repository_gets_a_venv_of_its_own(repository):
    moved = repository.rename(repository.parent / "moved")
    result = set_up(moved)
    assert result.code == 0, result
    assert result.stdout.splitlines()[1] == str(moved / ".venv")


def test_changed_requirements_are_installed_into_the_venv_that_is_there(repository):
    (repository / ".venv" / "mine").write_text("")
    require_another(repository)
    result = set_up(repository)
    assert result.code == 0, result
    assert "another" in result.stderr
    assert (repository / ".venv" / "mine").exists()
    assert run([repository / ".venv/bin/python", "-c", "import another"], cwd=repository).code == 0


def test_somebody_elses_venv_is_used_and_never_removed(repository):
    (repository / STATE).unlink()
    (repository / ".venv" / "mine").write_text("")
    assert set_up(repository).code == 0
    (repository / STATE).write_text("found here\ninstalling\n")  # as after a kill
    assert set_up(repository).code == 0
    assert (repository / ".venv" / "mine").exists()
    (repository / STATE).unlink()
    (repository / ".venv" / "bin" / "python").unlink()
    result = set_up(repository)
    assert result.code == 1
    assert "was not made by this script" in result.stderr
    assert (repository / ".venv" / "mine").exists()


def test_a_failing_installer_is_shown_whole_and_the_next_run_repairs(repository):
    require_another(repository)
    wheel = repository.parent / "wheels" / "another-2.0-py3-none-any.whl"
    wheel.rename(wheel.with_suffix(".away"))
    result = set_up(repository)
    assert result.code == 1
    assert "No matching distribution found for another==2.0" in result.stderr
    assert "then run the same command again" in result.stderr
    assert "Traceback" not in result.stderr
    wheel.with_suffix(".away").rename(wheel)
    assert set_up(repository).code == 0


def test_an_active_environment_is_completed_and_its_torch_kept(repository, tmp_path):
    active = bare_copy(repository / ".venv", tmp_path / "active")
    install(active, tmp_path, "2.12.0a0")
    result = set_up(repository, VIRTUAL_ENV=str(active), BERT_PYTORCH_PYTHON="")
    assert result.code == 0, result
    assert result.stdout.splitlines() == [str(active / "bin/python"), str(active)]
    code = "import torch, harmless; print(torch.__version__)"
    assert run([active / "bin/python", "-c", code], cwd=repository).stdout.strip() == "2.12.0a0"


def install(active: Path, tmp_path: Path, torch: str) -> None:
    """Put a make-believe torch of a cluster's own into an environment."""
    (site,) = active.glob("lib/python3*/site-packages")
    write_wheel(tmp_path / "own", "torch", torch)
    code = "__version__ = %r\nclass ones:\n    def __init__(self, n): pass\n    def sum(self): return 0\n" % torch  # noqa: UP031
    shutil.unpack_archive(tmp_path / "own" / f"torch-{torch}-py3-none-any.whl", site, "zip")
    (site / "torch.py").write_text(code)


@pytest.mark.parametrize(
    ("version", "broken", "message"),
    [
        ("2.9.1", False, "has torch 2.9.1, wanted 2.11 or newer"),
        ("2.12.0", True, "does not work: ImportError: no driver"),
    ],
)
def test_an_active_environments_unusable_torch_is_told_not_replaced(repository, tmp_path, version, broken, message):
    active = bare_copy(repository / ".venv", tmp_path / "active")
    install(active, tmp_path, version)
    (module,) = active.glob("lib/python3*/site-packages/torch.py")
    if broken:
        module.write_text("raise ImportError('no driver')")
    before = module.read_text()
    result = set_up(repository, VIRTUAL_ENV=str(active), BERT_PYTORCH_PYTHON="")
    assert result.code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert module.read_text() == before


def test_without_a_right_python_it_is_said_what_is_wanted(repository, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "env"):
        (programs / name).symlink_to(shutil.which(name) or "")
    (programs / "python3").write_text("#!/bin/sh\nexit 1\n")
    (programs / "python3").chmod(0o755)
    result = set_up(repository, PATH=str(programs), BERT_PYTORCH_PYTHON="")
    assert result.code == 1
    assert "no Python 3.11 or 3.12 found" in result.stderr
    assert "apt-get install python3.11 python3.11-venv" in result.stderr


def test_a_python_that_was_named_and_is_wrong_is_told(repository):
    result = set_up(repository, BERT_PYTORCH_PYTHON="/bin/false")
    assert result.code == 1
    assert "BERT_PYTORCH_PYTHON is /bin/false, wanted the path of a Python 3.11 or 3.12" in result.stderr


def test_a_killed_set_up_leaves_its_lock_to_the_installer_that_lives_on(repository):
    """Pip goes on writing when only the shell and our script are killed: the next set-up waits for it."""
    slow = repository.parent / "slow_pip.py"
    slow.write_text("import time, pathlib; time.sleep(3); pathlib.Path('pip-ended').write_text(str(time.time()))\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1] + '/scripts/lib')\nimport environment\nfrom pathlib import Path\n"
        "with environment.lock(Path(sys.argv[1]) / '.venv.lock'):\n"
        "    print('here', flush=True)\n    environment.run([sys.executable, sys.argv[2]])\n"
    )
    command = [BARE, "-c", code, str(repository), str(slow)]
    with subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "here\n"
        time.sleep(1)
        killed.kill()
    require_another(repository)
    result = set_up(repository)
    assert result.code == 0, result
    assert "waiting for another set-up" in result.stderr
    ended = float((repository / "pip-ended").read_text())
    assert (repository / STATE).stat().st_mtime > ended


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--help"], 0, "--output_dir DIR"),
        (["-h"], 0, "--output_dir DIR"),
        (["--outputdir", "x"], 2, "unknown argument --outputdir; the only option is --output_dir DIR"),
        (["x"], 2, "unknown argument x"),
        (["--output_dir"], 2, "no folder follows --output_dir"),
        (["--output_dir", "--help"], 2, "no folder follows --output_dir"),
    ],
)
def test_quickstart_answers_wrong_words_before_it_installs_anything(tmp_path, words, code, message):
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    result = run([tmp_path / "scripts" / "quickstart.sh", *words], cwd=tmp_path)
    assert result.code == code
    assert message in result.stdout + result.stderr
    assert not (tmp_path / ".venv").exists()


def test_requirements_are_pinned_and_torch_stands_alone():
    for name in (
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-extras.txt",
        "requirements-torch.txt",
        "requirements-triton.txt",
    ):
        lines = [line.partition("#")[0].strip() for line in (REPOSITORY / name).read_text().splitlines()]
        for line in filter(None, lines):
            assert re.fullmatch(r"-r requirements-\w+\.txt|[\w-]+(\[\w+\])?==[\w.]+", line), f"{name}: {line}"
            assert not re.match(r"torch\W", line) or name == "requirements-torch.txt"
