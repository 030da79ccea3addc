"""The record of a run: its resolved configuration, where each value came from, and what it ran with."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from bert_pytorch.config.command_line import Resolved
from bert_pytorch.config.settings import Settings
from bert_pytorch.files import atomic_write_json

LIBRARIES = ("torch", "numpy", "tokenizers", "h5py", "pydantic")


S = TypeVar("S", bound=Settings)


def write_run_config(path: Path, resolved: Resolved[S], model_config: Mapping[str, Any], world_size: int) -> None:
    """Write `{log_prefix}_run_config.json`: enough to run the same again."""
    atomic_write_json(
        path,
        {
            "config": resolved.settings.model_dump(mode="json"),
            "origins": resolved.origins,
            "model_config": dict(model_config),
            "world_size": world_size,
            "argv": sys.argv,
            "python": platform.python_version(),
            "host": platform.node(),
            "versions": {name: metadata.version(name) for name in LIBRARIES},
            "git_commit": git_commit(),
        },
    )


def git_commit() -> dict[str, Any] | None:
    """Return the commit this code is at and whether it was changed since; None where the code is not a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        return {"commit": commit, "modified": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
