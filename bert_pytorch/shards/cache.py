"""The bounded folder of local copies: flat files of compressed shards, tokens of texts, shards fetched from elsewhere.

The folder is $BERT_PYTORCH_CACHE, else `bert_pytorch/shards` in $XDG_CACHE_HOME or ~/.cache.  It stays under
$BERT_PYTORCH_CACHE_GIB, what is being written included: the least recently used files go first, but none of the sets
that this process reads.  Time of access says when a file was used: that of modification is part of a flat file's name.
"""

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.errors import ConfigError
from bert_pytorch.files import TEMPORARY_PREFIX, atomic_path

logger = logging.getLogger(__name__)

FOLDER_VARIABLE, LIMIT_VARIABLE = "BERT_PYTORCH_CACHE", "BERT_PYTORCH_CACHE_GIB"

_DEFAULT_LIMIT_GIB = 200.0
_NAME = re.compile(r"[0-9a-f]{64}\.(rows|tokens)")
_ABANDONED_SECONDS = 24 * 3600

_RESERVED = ".reserved-"

REMOTE, INCOMING = "remote", ".incoming"
"""Subfolder of fetched shards, REMOTE/ADDRESS/CONTENT/, and in each of these where copies arrive, in a folder each."""

_used: set[Path] = set()
"""Flat files of the sets that this process reads; training and held-out ones share one limit."""
_kept: dict[object, frozenset[Path]] = {}
"""Fetched files that must stay, by who needs them; whole entries are exchanged, so that readers need no lock."""


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


def spare(files: Iterable[Path]) -> None:
    """Keep files of the cache from being removed by this process."""
    _used.update(files)


def keep(owner: object, files: Iterable[Path]) -> None:
    """Keep files of the cache from being removed by this process, instead of those that `owner` kept before."""
    _kept[owner] = frozenset(files)


def release(owner: object) -> None:
    """Let the files that `owner` kept be removed again."""
    _kept.pop(owner, None)


def mark_used(file: Path) -> None:
    """Note that a file is used now."""
    with contextlib.suppress(OSError):  # a folder that is shared may not be ours, another process may have removed it
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))


def built_once(name: str, size: int, build: Callable[[Path], None]) -> Path:
    """Return a file of the cache that is not of one shard, built where it is not there yet.

    Processes share the work: one builds, the others wait.

    Args:
        name: 64 hexadecimal digits, an identity of what it is built from, and `.tokens`.
        size: bytes it takes, about.
        build: writes the file to the path that it is given.
    """
    assert _NAME.fullmatch(name)
    target = cache_folder() / name
    _used.add(target)
    if not target.exists():
        with _locked(target.parent / f".lock-{target.stem}"):
            if not target.exists():
                with reserved(target, size), atomic_path(target) as temporary:
                    build(temporary)
                make_room(target.parent, 0)  # it may have become larger than anybody could tell
    mark_used(target)
    return target


def identity(path: Path) -> str:
    """Return what a file is known by: its place, size and time of change."""
    state = path.stat()
    return f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"


@contextlib.contextmanager
def reserved(target: Path, size: int) -> Iterator[None]:
    """Make room for a file, whose bytes count as there until the end of the block: by then it is.

    A reservation is an empty file of that length, locked: the kernel tells those of ended processes.

    Args:
        target: the file, for messages.
        size: of it in bytes.
    """
    folder = cache_folder()
    with contextlib.ExitStack() as held:
        with _locked(folder / ".lock-room"):
            make_room(folder, size)
            handle, name = tempfile.mkstemp(prefix=_RESERVED, dir=folder)
            held.callback(os.close, handle)
            held.callback(Path(name).unlink, missing_ok=True)
            os.fchmod(handle, 0o644)  # others who share the folder ask for its lock
            try:
                os.truncate(handle, size)
            except OSError as error:
                error.filename = str(target)
                raise
            _lock(handle, fcntl.LOCK_EX)
        yield


class _Held(NamedTuple):
    """What takes room in the cache and may be removed."""

    last_use: float
    size: int
    path: Path


def make_room(folder: Path, size: int) -> None:
    """Remove what was used least recently until `size` more bytes stay under the limit, sparing what is in use here.

    Where the disk is fuller than the limit foresees, its free bytes count instead.

    Args:
        folder: of the cache.
        size: bytes that are to be written.
    """
    held, pending = sorted(_held(folder)), _reserved_bytes(folder)
    excess = sum(each.size for each in held) + pending + size - limit_bytes()
    excess = max(excess, pending + size - shutil.disk_usage(folder).free)
    needed = _used.union(*list(_kept.values()))
    for each in held:
        if excess > 0 and each.path not in needed and _removed(each.path):
            excess -= each.size


def _held(folder: Path) -> Iterator[_Held]:
    now = time.time()
    flat, fetched = folder.glob("*"), (folder / REMOTE).glob("*/*/*.hdf5")
    for file in itertools.chain(flat, fetched, (folder / REMOTE).glob(f"*/*/{INCOMING}/*")):
        with contextlib.suppress(FileNotFoundError):  # other processes make room too
            state = file.stat()
            used = max(state.st_atime, state.st_mtime)
            if file.parent.name == INCOMING:
                if not _is_idle(file):
                    continue  # its reservation counts
                yield _Held(used, sum(part.stat().st_size for part in file.rglob("*") if part.is_file()), file)
            elif file.name.startswith(TEMPORARY_PREFIX) and now - state.st_mtime > _ABANDONED_SECONDS:
                file.unlink()
            elif _NAME.fullmatch(file.name) or file.parent != folder:
                yield _Held(used, state.st_size, file)


def _removed(path: Path) -> bool:
    """Remove a file, or the parts of one that nobody is fetching; tell whether it is gone."""
    if path.parent.name != INCOMING:
        path.unlink(missing_ok=True)  # whoever has it mapped keeps it until the mapping closes
        if path.suffix == ".tokens":
            path.with_name(f".lock-{path.stem}").unlink(missing_ok=True)
        return True
    with _lock_file(path.parent.parent / path.name).open("a") as lock:
        if not _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
        shutil.rmtree(path, ignore_errors=True)
    return True


def _is_idle(parts: Path) -> bool:
    with _lock_file(parts.parent.parent / parts.name).open("a") as lock:
        return _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _reserved_bytes(folder: Path) -> int:
    total = 0
    for file in folder.glob(f"{_RESERVED}*"):
        with contextlib.suppress(FileNotFoundError, PermissionError), file.open("rb") as lock:
            if _lock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
                file.unlink()  # of a process that ended
            else:
                total += file.stat().st_size
    return total


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


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process or thread at a time make a file, so that the ranks share the work; 256 locks serve all files."""
    with _locked(_lock_file(target)):
        yield


@contextlib.contextmanager
def _locked(lock_file: Path) -> Iterator[None]:
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a") as lock:
        with contextlib.suppress(OSError):  # no locks on this file system: the work is done twice, no harm
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process that makes the same ready in %s", lock_file.parent)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_file(target: Path) -> Path:
    key = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()[:2]
    return target.parent / f".lock-{key}"


def _lock(descriptor: int, how: int) -> bool:
    """Tell whether a file is locked now.  A file system without locks has work done twice, which does no harm."""
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    except OSError:
        return not how & fcntl.LOCK_NB
    return True
