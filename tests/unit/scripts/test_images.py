"""The Dockerfiles as text, and what they copy; the ssh files of an MPIJob between a real sshd and a real ssh."""

import fnmatch
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bert_pytorch.launch.kubernetes import LEAVING, SSH_PORT, SSHD
from scripts.lib.requirement_files import all_files
from tests.support import sshd
from tests.support.data import REPOSITORY
from tests.support.slurm import free_ports

DOCKER = REPOSITORY / "scripts" / "launch" / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
HOME_SSH = "/home/bert/.ssh"

dockerfiles = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)


def instructions(path: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their words, continued lines joined."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (requirements-dev.txt)")
@dockerfiles
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run(["hadolint", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@dockerfiles
def test_the_base_is_one_version_and_the_user_is_not_root(path: Path) -> None:
    found = instructions(path)
    base = next(words.removeprefix("BASE=") for name, words in found if name in ("ARG", "FROM"))
    assert re.fullmatch(r"[a-z0-9./_-]+:\d[\w.-]+", base)
    assert [words for name, words in found if name == "USER"] == ["10001"]
    assert any("useradd --uid 10001 --create-home bert" in words for name, words in found if name == "RUN")


@dockerfiles
def test_all_that_is_installed_is_pinned_and_in_the_build_context(path: Path) -> None:
    found = instructions(path)
    installed = re.findall(r"-r (\S+)", " ".join(words for name, words in found if name == "RUN"))
    copied = [source for name, words in found if name == "COPY" for source in words.split()[:-1]]
    assert set(all_files(installed)) <= set(copied)
    assert ("requirements-torch.txt" in installed) == (path.name == "cuda.Dockerfile")  # Gaudi's torch is Habana's
    for source in copied:
        assert (REPOSITORY / source).exists()


def test_an_image_holds_what_the_manifests_call_and_nothing_that_is_not_the_projects() -> None:
    text = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    for name in ("bert_pytorch", "config", "scripts", "run_pretraining.py", "run_squad.py", "LICENSE", str(LEAVING)):
        assert any(fnmatch.fnmatch(Path(name).parts[0], pattern) for pattern in kept), name
    for name in (".git", ".venv", "runs", "data", "corpus", "tests", ".env"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in kept), name


@dockerfiles
def test_the_ssh_files_lie_where_the_manifest_and_ssh_look(path: Path) -> None:
    copies = dict(words.split() for name, words in instructions(path) if name == "COPY" and "/launch/docker/" in words)
    assert copies["scripts/launch/docker/sshd_config"] == SSHD[-1]
    assert copies["scripts/launch/docker/ssh_config"].startswith("/etc/ssh/ssh_config.d/")
    for name in ("ssh_config", "sshd_config"):
        assert f"Port {SSH_PORT}" in (DOCKER / name).read_text(encoding="utf-8")


@pytest.mark.skipif(bool(sshd.missing_programs()), reason=f"not installed: {', '.join(sshd.missing_programs())}")
@pytest.mark.parametrize(("answering", "code"), [("the operator's key", 0), ("a stranger's key", 255)])
def test_a_launcher_reaches_its_worker_and_nobody_who_answers_in_its_place(
    answering: str, code: int, tmp_path: Path
) -> None:
    """The key is as the operator's: ECDSA, in a folder of both sides as id_rsa, id_rsa.pub and authorized_keys."""
    for name in ("id_rsa", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    shutil.copy(tmp_path / "id_rsa.pub", tmp_path / "authorized_keys")
    (port,) = free_ports(1)
    config = {}
    for name in ("ssh_config", "sshd_config"):
        text = (DOCKER / name).read_text(encoding="utf-8").replace(f"Port {SSH_PORT}", f"Port {port}")
        config[name] = tmp_path / name
        config[name].write_text(text.replace(HOME_SSH, str(tmp_path)), encoding="utf-8")
    if code:
        text = config["sshd_config"].read_text(encoding="utf-8")
        config["sshd_config"].write_text(text.replace(f"HostKey {tmp_path}/id_rsa", f"HostKey {tmp_path}/stranger"))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd separates its privileges
    program = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert program is not None
    with subprocess.Popen([program, *SSHD[1:-1], config["sshd_config"]], stderr=subprocess.DEVNULL) as daemon:
        try:
            command = ["ssh", "-F", config["ssh_config"], "-i", tmp_path / "id_rsa", "127.0.0.1", "echo reached"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        finally:
            daemon.terminate()
    assert done.returncode == code, done.stderr
    assert (done.stdout == "reached\n") == (code == 0)
    if code:
        assert "verification failed" in done.stderr
