"""The bounded folder of local copies: flat files of compressed shards, tokens of texts, shards fetched from elsewhere.

HDF5 unpacks a whole chunk for a row; a flat file can be memory-mapped.

The folder is $BERT_PYTORCH_CACHE, else `bert_pytorch/shards` in $XDG_CACHE_HOME or ~/.cache.  It stays under
$BERT_PYTORCH_CACHE_GIB: the least recently used files go first, but none of the sets that this process reads.
"""

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from bert_pytorch.errors import ConfigError, DamagedShardError
from bert_pytorch.files import TEMPORARY_PREFIX, atomic_path

logger = logging.getLogger(__name__)

FOLDER_VARIABLE, LIMIT_VARIABLE = "BERT_PYTORCH_CACHE", "BERT_PYTORCH_CACHE_GIB"

_DEFAULT_LIMIT_GIB = 200.0
_NAME = re.compile(r"[0-9a-f]{64}\.(rows|tokens)")
_BYTES_AT_ONCE = 16 * 2**20
_ALIGNMENT = 64
_ABANDONED_SECONDS = 24 * 3600

REMOTE = "remote"
"""Subfolder of fetched shards: a folder for each set."""

_used: set[Path] = set()
"""Files of the sets that this process reads; training and held-out ones, flat and fetched ones share one limit."""

Columns = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each dataset."""


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


def flat_offsets(columns: Columns) -> tuple[dict[str, int], int]:
    """Return the byte offset of each dataset in the flat file, and the file's size."""
    offsets, end = {}, 0
    for name, (dtype, shape) in columns.items():
        offsets[name] = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = offsets[name] + _size(dtype, shape)
    return offsets, end


def spare(paths: Iterable[Path]) -> None:
    """Keep the flat files of these shards from being removed by this process."""
    _used.update(cache_folder() / _name_of(path) for path in paths)


def keep(files: Iterable[Path]) -> None:
    """Keep files of the cache from being removed by this process, until `release`."""
    _used.update(files)


def release(files: Iterable[Path]) -> None:
    """Let files of the cache be removed again."""
    _used.difference_update(files)


def flat_file(path: Path, columns: Columns) -> Path:
    """Return the flat file of a compressed shard, made where it is not there yet.

    Args:
        path: the shard.
        columns: dtype and shape of its datasets, in the order of the flat file.

    Raises:
        DamagedShardError: if its compressed data are damaged.
        OSError: if the file cannot be written.
    """
    target = cache_folder() / _name_of(path)
    _, size = flat_offsets(columns)
    if not _is_whole(target, size):
        with alone(target):
            if not _is_whole(target, size):  # another process may have made it while this one waited
                make_room(target.parent, size)
                _decompress(path, columns, target)
    with contextlib.suppress(OSError):  # a folder that is shared may not be ours
        os.utime(target)
    return target


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
                make_room(target.parent, size)
                with atomic_path(target) as temporary:
                    build(temporary)
                make_room(target.parent, 0)  # it may have become larger than anybody could tell
    with contextlib.suppress(OSError):
        os.utime(target)
    return target


def identity(path: Path) -> str:
    """Return what a file is known by: its place, size and time of change."""
    state = path.stat()
    return f"{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"


def make_room(folder: Path, size: int) -> None:
    """Remove the least recently used files until `size` more bytes stay under the limit, sparing those in use here.

    Args:
        folder: of the cache.
        size: bytes that are to be written.
    """
    files, now = [], time.time()
    for file in itertools.chain(folder.glob("*"), (folder / REMOTE).glob("*/*")):
        with contextlib.suppress(FileNotFoundError):  # other processes make room too
            state = file.stat()
            if file.name.startswith(TEMPORARY_PREFIX) and now - state.st_mtime > _ABANDONED_SECONDS:
                file.unlink()
            elif _NAME.fullmatch(file.name) or (file.parent.parent.name == REMOTE and file.suffix == ".hdf5"):
                files.append((state.st_mtime, state.st_size, file))
    excess = sum(length for _, length, _ in files) + size - limit_bytes()
    for _, length, file in sorted(files):
        if excess > 0 and file not in _used:
            file.unlink(missing_ok=True)  # whoever has it mapped keeps it until the mapping closes
            (folder / f".lock-{file.stem}").unlink(missing_ok=True)
            excess -= length


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


def _name_of(path: Path) -> str:
    return f"{hashlib.sha256(identity(path).encode(errors='surrogateescape')).hexdigest()}.rows"


def _is_whole(target: Path, size: int) -> bool:
    try:
        return target.stat().st_size == size
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process or thread at a time make a file, so that the ranks share the work; 16 locks serve all files."""
    key = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()[0]
    with _locked(target.parent / f".lock-{key}"):
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


def _decompress(path: Path, columns: Columns, target: Path) -> None:
    offsets, size = flat_offsets(columns)
    with atomic_path(target) as temporary, temporary.open("wb") as flat, h5py.File(path) as file:
        for name, (dtype, shape) in columns.items():
            data = file[name]
            chunk = data.chunks[0] if data.chunks else 1
            rows = max(1, _BYTES_AT_ONCE // max(1, _size(dtype, shape[1:])) // chunk) * chunk  # whole chunks: each once
            flat.seek(offsets[name])
            for start in range(0, shape[0], rows):
                with _naming_damage(path, name, data, start, min(start + rows, shape[0])):
                    part = data[start : start + rows]
                flat.write(np.ascontiguousarray(part).data)
        flat.truncate(size)


@contextlib.contextmanager
def _naming_damage(path: Path, name: str, data: h5py.Dataset, start: int, stop: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise
        row = _first_unreadable(data, start, stop)
        raise DamagedShardError(
            f"{path}: {name} cannot be decompressed from row {row} on ({error}). Build it again, or train without it: "
            "--on_bad_shard skip",
            path,
            row,
        ) from None


def _first_unreadable(data: h5py.Dataset, start: int, stop: int) -> int:
    """Return the first row of the first chunk that cannot be read."""
    step = data.chunks[0] if data.chunks else 1
    for row in range(start, stop, step):
        try:
            data[row : row + 1]
        except OSError:
            return row
    return start


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
