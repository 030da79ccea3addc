"""The fast way through a gzip dataset: its chunks straight from the file, inflated by ISA-L where that is installed.

HDF5 inflates by zlib, at half the speed, and h5py holds a lock of the whole process meanwhile.  Whatever is not a plain
gzip dataset (another filter, chunks that are absent, damaged or too large) is left to h5py, the reference.
"""

import contextlib
import itertools
import math
import os
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from h5py import h5t, h5z

inflating: Any = zlib  # the same bytes in twice the time
with contextlib.suppress(ImportError):
    from isal import isal_zlib as inflating

_LARGEST = 64 * 2**20
"""Bytes of a chunk, and of a row of chunks, that are worth it; a hostile file asks for any number."""
_SHUFFLED = {(h5z.FILTER_DEFLATE,): False, (h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE): True}
"""Filters in the order they were applied, and whether bytes of equal weight stand together."""

Place = tuple[int, ...]


class NotPlainGzipError(Exception):
    """This way is not for the dataset, or not for one of its chunks."""


def row_bands(descriptor: int, data: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield a dataset's rows in order, some at a time, C-contiguous, in the dtype of the file.

    Args:
        descriptor: of its file, open to read.
        data: an open dataset of the file.

    Raises:
        NotPlainGzipError: before the first rows or after some, where h5py must read them.
    """
    shape, chunk, dtype, shuffled = data.shape, data.chunks, data.dtype, _is_shuffled(data)
    if shuffled is None or not math.prod(shape):
        raise NotPlainGzipError
    if max(math.prod(chunk), chunk[0] * math.prod(shape[1:])) * dtype.itemsize > _LARGEST:
        raise NotPlainGzipError
    stored, size = _stored_chunks(data), math.prod(chunk) * dtype.itemsize
    columns = [range(0, end, step) for end, step in zip(shape[1:], chunk[1:], strict=True)]
    for start in range(0, shape[0], chunk[0]):
        read = {}
        for rest in itertools.product(*columns):
            found = _inflated(descriptor, *stored[start, *rest], size)
            if shuffled:
                found = np.ascontiguousarray(found.reshape(dtype.itemsize, -1).T)
            read[rest] = found.view(dtype).reshape(chunk)
        yield _side_by_side(read, (min(chunk[0], shape[0] - start), *shape[1:]))


def _is_shuffled(data: h5py.Dataset) -> bool | None:
    """Tell whether a gzip dataset is shuffled too; None where other filters, or h5py, change what it holds."""
    created = data.id.get_create_plist()
    filters = tuple(created.get_filter(number)[0] for number in range(created.get_nfilters()))
    if data.chunks is None or not data.id.get_type().equal(h5t.py_create(data.dtype, logical=True)):
        return None
    return _SHUFFLED.get(filters)


def _stored_chunks(data: h5py.Dataset) -> dict[Place, tuple[int, int]]:
    """Return offset and length in the file of each chunk, by its first element."""
    stored: dict[Place, tuple[int, int]] = {}

    def note(chunk: Any) -> None:
        if chunk.filter_mask == 0:  # no filter was left out for it
            stored[tuple(chunk.chunk_offset)] = chunk.byte_offset, chunk.size

    try:
        data.id.chunk_iter(note)
    except (OSError, RuntimeError):
        raise NotPlainGzipError from None
    wanted = itertools.product(*(range(0, end, step) for end, step in zip(data.shape, data.chunks, strict=True)))
    if any(place not in stored for place in wanted):
        raise NotPlainGzipError
    return stored


def _side_by_side(chunks: dict[Place, np.ndarray], shape: Place) -> np.ndarray:
    """Join chunks of the same rows; those at the edges reach beyond the dataset."""
    if len(chunks) == 1:
        (whole,) = chunks.values()
        return np.ascontiguousarray(whole[tuple(map(slice, shape))])
    band = np.empty(shape, next(iter(chunks.values())).dtype)
    for first, chunk in chunks.items():
        inside = band[(slice(None), *map(slice, first, np.add(first, chunk.shape[1:])))]
        inside[...] = chunk[tuple(map(slice, inside.shape))]
    return band


def _inflated(descriptor: int, offset: int, length: int, size: int) -> np.ndarray:
    """Return the bytes of a chunk that should inflate to `size`, uint8 (size,), never making more of them."""
    if length > 2 * size + 1024:
        raise NotPlainGzipError
    inflater = inflating.decompressobj()
    try:
        found = inflater.decompress(os.pread(descriptor, length, offset), size + 1)
    except (inflating.error, OSError, OverflowError):  # a hostile offset, a failing disk: h5py says which
        raise NotPlainGzipError from None
    if len(found) != size or not inflater.eof:
        raise NotPlainGzipError
    return np.frombuffer(found, np.uint8)
