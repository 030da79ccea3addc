"""Facts about the machine that decide which tests can run."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def need_root() -> None:
    """Skip the calling test unless it runs as root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def need_program(name: str) -> str:
    """Return the path of a system program, or skip the calling test."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"the program {name} is not installed (.ci/run installs what tests want)")
    return path


@contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """Mount a memory disk of `size_kib` on a new `folder`; skip the calling test where that is not allowed."""
    need_root()
    folder.mkdir(parents=True)
    command = [need_program("mount"), "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([need_program("umount"), "--lazy", str(folder)], check=True)
