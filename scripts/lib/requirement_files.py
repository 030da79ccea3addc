"""The pinned requirement files of this repository, compared with what an interpreter has.

Standard library only: it runs before anything is installed.
"""

import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TORCH_FILE = "requirements-torch.txt"
TRITON_FILE = "requirements-triton.txt"
"""Left out where Triton is there already: the one that came with torch is the one that fits it."""
CORE_FILES = [TORCH_FILE, "requirements.txt"]
TEST_FILES = [*CORE_FILES, "requirements-dev.txt", TRITON_FILE]
OLDEST_TORCH = (2, 11)
"""A torch of the machine's own that is at least this new is kept."""


class Requirement(NamedTuple):
    """One pinned line of a requirements file."""

    name: str
    version: str


def missing_packages(files: Sequence[str]) -> list[Requirement]:
    """Return the requirements that this interpreter does not have; its own newer torch and any Triton are kept."""
    missing = []
    for requirement in requirements_of(files):
        found = installed_version(requirement.name)
        if requirement.name == "torch" and found is not None and release(found) >= OLDEST_TORCH:
            continue
        if requirement.name == "triton" and found is not None:
            continue
        if found is None or found.partition("+")[0] != requirement.version:
            missing.append(requirement)
    return missing


def requirements_of(files: Sequence[str]) -> list[Requirement]:
    """Read the pinned requirements of some files, those that they include with `-r` among them."""
    found: list[Requirement] = []
    for file in files:
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            content = line.partition("#")[0].strip()
            if content.startswith("-r "):
                found += requirements_of([content.removeprefix("-r ").strip()])
            elif content:
                name, _, version = content.partition("==")
                found.append(Requirement(name.partition("[")[0], version))  # moto[server] is installed as moto
    return list(dict.fromkeys(found))


def all_files(files: Sequence[str]) -> list[str]:
    """Return `files` and those that they include with `-r`."""
    found = []
    for file in files:
        text = (ROOT / file).read_text(encoding="utf-8")
        included = [match.strip() for match in re.findall(r"^-r ([^#\n]+)", text, re.MULTILINE)]
        found += [file, *all_files(included)]
    return list(dict.fromkeys(found))


def installed_version(name: str) -> str | None:
    """Return the version of a package that this interpreter has."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: `2.11.0a0+git12` is (2, 11, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()
