"""Bring the Python environment of this repository up, and print the path of its interpreter.

`scripts/lib/environment.sh` runs this with a bare Python 3.11 or 3.12, so only the standard library is imported.
Which environment it is: an active venv or conda environment (the base one excepted), else a Python that has every
pinned package already, else `.venv` in the repository.  A torch that an active environment brings is kept: clusters and
Gaudi images have their own builds.

`.venv/.bert_pytorch` says who made `.venv` and how far it is: `installing`, or what is installed.  Found `installing`
without a living installer, the folder is the rest of a killed set-up and is made anew; a `.venv` that somebody
else made is never removed.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from requirement_files import (
    CORE_FILES,
    OLDEST_TORCH,
    ROOT,
    TEST_FILES,
    TORCH_FILE,
    TRITON_FILE,
    Requirement,
    all_files,
    installed_version,
    missing_packages,
    release,
    requirements_of,
)

STATE_NAME = ".bert_pytorch"
MADE_HERE, FOUND_HERE = "made here", "found here"
INSTALLING = "installing"
HELD_LOCKS: list[int] = []
"""Open lock files, which the programs we start keep open too."""


class SetupError(Exception):
    """Set-up cannot go on; the text is a whole message with the next thing to do."""


def main(argv: Sequence[str]) -> int:
    """Set up the environment for `running` or `testing`; print its interpreter's path."""
    try:
        python = prepare(TEST_FILES if list(argv) == ["testing"] else CORE_FILES)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: set-up: {error}. Mend that, then run the same command again.", file=sys.stderr)
        return 1
    print(python)
    return 0


def prepare(files: Sequence[str]) -> Path:
    """Return the interpreter of an environment that holds all requirements of `files`, installing what is missing."""
    if is_active_environment():
        return prepare_active(files)
    if not missing_packages(files):
        return Path(sys.executable)  # an image whose own Python has everything
    return prepare_venv(files)


def is_active_environment() -> bool:
    """Whether this interpreter belongs to an environment that a person activated, other than our own `.venv`."""
    if Path(sys.prefix).resolve() == ROOT / ".venv":
        return False
    if sys.prefix != sys.base_prefix:
        return True
    # Installing into conda's base environment would break conda itself.
    return os.environ.get("CONDA_PREFIX") == sys.prefix and os.environ.get("CONDA_DEFAULT_ENV") != "base"


def prepare_active(files: Sequence[str]) -> Path:
    """Install into the active environment what it lacks; its own torch stays."""
    python = Path(sys.executable)
    if not missing_packages(files):
        return python
    say(f"using the active environment {sys.prefix}")
    with lock(Path(sys.prefix) / f"{STATE_NAME}.lock"):
        refuse_foreign_torch()
        install_missing(python, missing_packages(files), files)
    return python


def refuse_foreign_torch() -> None:
    """Raise SetupError if torch is here but cannot be used: it is not ours to replace."""
    found = installed_version("torch")
    if found is None:
        return
    wanted = ".".join(map(str, OLDEST_TORCH))
    if release(found) < OLDEST_TORCH:
        raise SetupError(
            f"the active environment {sys.prefix} has torch {found}, wanted {wanted} or newer. "
            "It is not replaced, because clusters have their own builds: install a newer one there, or deactivate "
            "the environment and start again to get .venv."
        )
    trial = subprocess.run(
        [sys.executable, "-c", "import torch; torch.ones(2).sum()"], check=False, capture_output=True, text=True
    )
    if trial.returncode:
        reason = (trial.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise SetupError(
            f"the torch {found} of the active environment {sys.prefix} does not work: {reason}. "
            "Repair it, or deactivate that environment and start again to get .venv."
        )


def prepare_venv(files: Sequence[str]) -> Path:
    """Make or complete `.venv` in the repository."""
    venv = ROOT / ".venv"
    python = venv / "bin" / "python"
    if is_complete(venv, files):
        return python
    with lock(ROOT / ".venv.lock"):
        if is_complete(venv, files):  # the one we waited for did it
            return python
        owner = (state_lines(venv) or [MADE_HERE if is_absent(venv) else FOUND_HERE])[0]
        if owner == MADE_HERE and not is_usable(venv):
            make_venv(venv)
        elif not works(python):
            raise SetupError(
                f"{venv} was not made by this script and holds no working Python 3.11 or 3.12. "
                "Move it away, then run the same command again."
            )
        write_state(venv, [owner, INSTALLING])
        if inherited := inherited_torch(venv):
            say(f"keeping the torch {inherited} that {sys.base_prefix} has")
            install_missing(python, requirements_of(files), files, torch=inherited)
        else:
            install_missing(python, requirements_of(files), files)
        write_state(venv, [owner, *finished_state(venv, files)])
    return python


def make_venv(venv: Path) -> None:
    """Make `.venv` empty; the rest of a set-up that was killed, or of a moved folder, goes."""
    base = Path(getattr(sys, "_base_executable", sys.executable))
    if venv.exists():
        say(f"{venv} is unfinished or was moved: making it anew")
        shutil.rmtree(venv)
    venv.mkdir()
    write_state(venv, [MADE_HERE, INSTALLING])
    outer_torch = base_torch(base)
    options = ["--system-site-packages"] if outer_torch else []
    version = ".".join(map(str, sys.version_info[:3]))
    with step(f"making {venv} with Python {version} ({base})"):
        try:
            run([str(base), "-m", "venv", *options, str(venv)])
        except SetupError as error:
            if "ensurepip" not in str(error):
                raise
            short = ".".join(map(str, sys.version_info[:2]))
            raise SetupError(
                f"{base} cannot make virtual environments: its ensurepip is missing, which Debian and Ubuntu package "
                f"apart. Type: apt-get install python{short}-venv   then run the same command again."
            ) from None


def base_torch(base: Path) -> str | None:
    """Return the version of a usable torch that the Python outside any environment brings, as Gaudi images do."""
    return probe(base, "import torch; torch.ones(2).sum(); print(torch.__version__)", OLDEST_TORCH)


def inherited_torch(venv: Path) -> str | None:
    """Return the version of the torch that `.venv` sees through its base Python, None when it has its own or none."""
    if "include-system-site-packages = true" not in (venv / "pyvenv.cfg").read_text():
        return None
    code = "import sys, torch; print('' if torch.__file__.startswith(sys.prefix) else torch.__version__)"
    return probe(venv / "bin" / "python", code, OLDEST_TORCH)


def probe(python: Path, code: str, oldest: tuple[int, ...]) -> str | None:
    """Return the version that `code` prints under `python`, None if it fails or is older than `oldest`."""
    answer = subprocess.run([str(python), "-c", code], check=False, capture_output=True, text=True)
    version = answer.stdout.strip()
    return version if answer.returncode == 0 and version and release(version) >= oldest else None


def install_missing(
    python: Path, wanted: Sequence[Requirement], files: Sequence[str], torch: str | None = None
) -> None:
    """Install the requirement files, torch first and then held fixed, so that no other package replaces it."""
    if torch is None and python == Path(sys.executable):
        torch = installed_version("torch")
    if torch is None:
        (pin,) = requirements_of([TORCH_FILE])
        with step(f"installing {pin.name} {pin.version} (a large download)"):
            pip(python, ["-r", str(ROOT / TORCH_FILE)])
        torch = pin.version
    kept = {"torch"}
    if TRITON_FILE in files and probe(python, "import triton; print(triton.__version__)", (0,)):
        kept.add("triton")
    others = [file for file in files if file != TORCH_FILE and not (file == TRITON_FILE and "triton" in kept)]
    names = [requirement.name for requirement in wanted if requirement.name not in kept]
    with step(f"installing {len(names)} packages: {', '.join(names)}"), tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder) / "torch.txt"
        constraint.write_text(f"torch=={torch}\n")
        pip(python, [*(word for file in others for word in ("-r", str(ROOT / file))), "-c", str(constraint)])


def pip(python: Path, words: Sequence[str]) -> None:
    """Install; pip's own output is shown when it fails, whole."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *words]
    try:
        run(command)
    except SetupError as error:
        hint = "Mend what pip names above (often the network or a full disk), then run the same command again."
        raise SetupError(f"{error}\n{hint}") from None


def run(command: Sequence[str]) -> None:
    """Run a quiet command, showing the seconds on a terminal; raise SetupError with all its output if it fails."""
    environment = os.environ | {"PIP_USER": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    started = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        # The child holds the lock too: should we be killed, the next set-up waits until the orphan has ended.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=environment, pass_fds=HELD_LOCKS
        )
        while True:
            try:
                code = process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if sys.stderr.isatty():
                    print(f"\r{time.monotonic() - started:5.0f} s ", end="", file=sys.stderr, flush=True)
        if code:
            output.seek(0)
            raise SetupError(f"this failed with exit code {code}: {' '.join(command)}\n{output.read().strip()}")


def is_absent(venv: Path) -> bool:
    """Whether there is nothing of a `.venv` yet."""
    return not venv.exists() or not any(venv.iterdir())


def is_complete(venv: Path, files: Sequence[str]) -> bool:
    """Whether `.venv` works here and everything in `files` was installed into it to the end."""
    return set(finished_state(venv, files)) <= set(state_lines(venv)) and works(venv / "bin" / "python")


def is_usable(venv: Path) -> bool:
    """Whether a `.venv` of ours was finished once, and here: what may be left is to install into it."""
    return {f"folder {venv}", f"python {python_of(venv)}"} <= set(state_lines(venv)) and works(venv / "bin" / "python")


def finished_state(venv: Path, files: Sequence[str]) -> list[str]:
    """Return what the state file of a finished `.venv` says: its folder, its Python, the requirements by checksum."""
    checksums = [f"{file} {hashlib.sha256((ROOT / file).read_bytes()).hexdigest()}" for file in all_files(files)]
    return [f"folder {venv}", f"python {python_of(venv)}", *checksums]


def state_lines(venv: Path) -> list[str]:
    """Read the state file: the owner, then `installing` or the finished state; empty if there is none."""
    try:
        return (venv / STATE_NAME).read_text().splitlines()
    except OSError:
        return []


def write_state(venv: Path, lines: Sequence[str]) -> None:
    """Write the state file so that a reader sees the old one or the new one."""
    temporary = venv / f"{STATE_NAME}.partial-{os.getpid()}"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(venv / STATE_NAME)


def python_of(venv: Path) -> str:
    """Return the Python version that a venv was made with, such as 3.11."""
    try:
        match = re.search(r"^version(?:_info)? = (\d+\.\d+)", (venv / "pyvenv.cfg").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else "none"


def works(python: Path) -> bool:
    """Whether an interpreter starts and is a Python 3.11 or 3.12."""
    code = "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))"
    try:
        return subprocess.run([str(python), "-c", code], check=False, capture_output=True).returncode == 0
    except OSError:
        return False


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let one set-up at a time work; the others wait and say so."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this environment to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        HELD_LOCKS.append(file.fileno())
        try:
            yield
        finally:
            HELD_LOCKS.remove(file.fileno())


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, then how long it took."""
    say(what)
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    print(f"{chr(13) if sys.stderr.isatty() else ''}set-up:   done in {seconds:.0f} s", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Tell the person one line."""
    print(f"set-up: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
