"""Flat files: compressed shards, decompressed once into the cache.

HDF5 unpacks a whole chunk for a row; a flat file can be memory-mapped.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.files import atomic_path
from bert_pytorch.shards.cache import cache_folder, identity, mark_used
from bert_pytorch.shards.gzip_chunks import NotPlainGzipError, row_bands
from bert_pytorch.shards.locks import alone
from bert_pytorch.shards.room import reserved, spare

_BYTES_AT_ONCE = 16 * 2**20
_ALIGNMENT = 64

Columns = Mapping[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of each dataset."""


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a dataset, however many a hostile file says it has."""
    return np.dtype(dtype).itemsize * math.prod(shape)


def flat_offsets(columns: Columns) -> tuple[dict[str, int], int]:
    """Return the byte offset of each dataset in the flat file, and the file's size."""
    offsets, end = {}, 0
    for name, (dtype, shape) in columns.items():
        offsets[name] = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = offsets[name] + num_bytes(dtype, shape)
    return offsets, end


def spare_flat_files(paths: Iterable[Path]) -> None:
    """Keep the flat files of these shards from being removed by this process."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # found out when it is read
            spare([cache_folder() / _name_of(path)])


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
                with reserved(target, size):
                    _decompress(path, columns, target)
    mark_used(target)
    return target


def _name_of(path: Path) -> str:
    return f"{hashlib.sha256(identity(path).encode(errors='surrogateescape')).hexdigest()}.rows"


def _is_whole(target: Path, size: int) -> bool:
    try:
        return target.stat().st_size == size
    except FileNotFoundError:
        return False


def _decompress(path: Path, columns: Columns, target: Path) -> None:
    offsets, size = flat_offsets(columns)
    with (
        atomic_path(target) as temporary,
        temporary.open("wb") as flat,
        path.open("rb") as shard,
        h5py.File(path) as file,
    ):
        for name in columns:
            flat.seek(offsets[name])
            try:
                flat.writelines(band.data for band in row_bands(shard.fileno(), file[name]))
            except NotPlainGzipError:
                flat.seek(offsets[name])
                flat.writelines(part.data for part in parts_by_h5py(path, file[name]))
        flat.truncate(size)


def parts_by_h5py(path: Path, data: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield a dataset's rows in order, some MB at a time, C-contiguous, in the dtype of the file.

    Args:
        path: of its file, for messages.
        data: a dataset of any kind.

    Raises:
        DamagedShardError: naming the first row that cannot be read.
    """
    name, chunk = data.name.rpartition("/")[2], data.chunks[0] if data.chunks else 1
    row_bytes = max(1, num_bytes(data.dtype.str, data.shape[1:]))
    rows = max(1, _BYTES_AT_ONCE // row_bytes // chunk) * chunk  # whole chunks: each once
    for start in range(0, data.shape[0], rows):
        with _naming_damage(path, name, data, start, min(start + rows, data.shape[0])):
            part = data[start : start + rows]
        yield np.ascontiguousarray(part)


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
