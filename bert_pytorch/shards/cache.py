"""The bounded folder of local copies: flat files of compressed shards, tokens of texts, shards fetched from elsewhere.

The folder is $BERT_PYTORCH_CACHE, else `bert_pytorch/shards` in $XDG_CACHE_HOME or ~/.cache; $BERT_PYTORCH_CACHE_GIB is
its limit, which `shards.room` holds.  Time of access says when a file was used: that of modification is part of a flat
file's name.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from bert_pytorch.errors import ConfigError

FOLDER_VARIABLE, LIMIT_VARIABLE = "BERT_PYTORCH_CACHE", "BERT_PYTORCH_CACHE_GIB"
_DEFAULT_LIMIT_GIB = 200.0

REMOTE, INCOMING = "remote", ".incoming"
"""Subfolder of fetched shards, REMOTE/ADDRESS/CONTENT/, and in each of these where copies arrive, in a folder each."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of decompressed shards and of tokens.

    Raises:
        ConfigError: if neither the environment nor a home folder says where.
    """
    if environment.get(FOLDER_VARIABLE):
        return Path(environment[FOLDER_VARIABLE])
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(caches).expanduser() / "bert_pytorch" / "shards"
    except RuntimeError:
        problem = "not set, and there is no home folder; name a folder for decompressed shards."
        raise ConfigError(FOLDER_VARIABLE, [problem]) from None


def limit_bytes(environment: Mapping[str, str] = os.environ) -> int:
    """Return how large the folder may grow.

    Raises:
        ConfigError: if $BERT_PYTORCH_CACHE_GIB is not a number above 0.
    """
    written = environment.get(LIMIT_VARIABLE) or str(_DEFAULT_LIMIT_GIB)
    with contextlib.suppress(ValueError, OverflowError):
        if float(written) > 0:
            return int(float(written) * 2**30)
    raise ConfigError(LIMIT_VARIABLE, [f"found {written!r}, wanted a number of GiB above 0."])


def mark_used(file: Path) -> None:
    """Note that a file is used now."""
    with contextlib.suppress(OSError):  # a folder that is shared may not be ours, another process may have removed it
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


def identity(path: Path) -> str:
    """Return what a file is known by: its place, size and time of change."""
    state = path.stat()
    return f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
