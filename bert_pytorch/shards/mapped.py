"""The rows of one shard, memory-mapped: in place, or decompressed by `shards.flat_files`."""

import contextlib
import io
import mmap
import os
from pathlib import Path

import numpy as np

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.records import SequenceRows
from bert_pytorch.shards import layouts, packed
from bert_pytorch.shards.cache import LIMIT_VARIABLE
from bert_pytorch.shards.flat_files import flat_file, flat_offsets, num_bytes
from bert_pytorch.shards.headers import Header, advice_for
from bert_pytorch.shards.room import NoRoom
from bert_pytorch.shards.row_columns import needed_columns, rows_of, unpacked

_MOST_TRIES = 5


class OpenShard:
    """The rows of one shard, mapped; a compressed one is decompressed first, if it never was."""

    def __init__(self, header: Header) -> None:
        self.header = header
        offsets = header.offsets if header.offsets is not None else flat_offsets(header.columns)[0]
        self._path, opened = _opened(header)
        with opened as file:
            self._size = os.fstat(file.fileno()).st_size
            if any(
                offsets[name] + num_bytes(dtype, shape) > self._size for name, (dtype, shape) in header.columns.items()
            ):
                raise self._truncated(self._size)
            whole = mmap.mmap(file.fileno(), self._size, access=mmap.ACCESS_READ)  # one descriptor a shard
        columns = header.columns.items()
        self._columns = {name: np.ndarray(shape, dtype, whole, offsets[name]) for name, (dtype, shape) in columns}
        self._places = _places(header, self._columns) if header.layout == "packed" else None

    def columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Gather rows of each dataset that `rows_of` reads.

        Args:
            indices: int64 (n,), within this shard, in any order.
        """
        if self._places is not None:
            return unpacked(self.header, self._columns, self._places[indices], indices)
        return {name: self._columns[name].take(indices, axis=0) for name in needed_columns(self.header)}

    def rows(self, indices: np.ndarray) -> SequenceRows:
        """Gather rows, int64 (n,) as in `columns`."""
        return rows_of(self.header.layout, self.header.next_sentence, self.columns(indices))

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of rows, int32 (n,)."""
        if self.header.layout == "native":
            return self._columns[layouts.SPECIAL_TOKEN_POSITIONS][indices, -1].astype(np.int32) + 1
        if self._places is not None:
            rows, slots = np.divmod(self._places[indices], self._columns[layouts.NEXT_SENTENCE_WEIGHTS].shape[1])
            return packed.unpacked_lengths(self._columns, rows, slots)
        return self._columns[layouts.INPUT_MASK].take(indices, axis=0).sum(axis=1, dtype=np.int32)

    def refuse_shrunk(self) -> None:
        """Raise `DamagedShardError` if the file lost bytes since it was mapped: touching them would end the process."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return  # the mapping keeps what was removed or renamed
        if size < self._size:
            raise self._truncated(size)

    def _truncated(self, size: int) -> DamagedShardError:
        return DamagedShardError(
            f"{self._path}: truncated: found {size:,} bytes, its datasets need more. {advice_for(self.header.path)}",
            self.header.path,
        )


def _opened(header: Header) -> tuple[Path, io.FileIO]:
    """Open what is to be mapped; a flat file may go again before that, where processes share too little room."""
    if header.offsets is not None:
        return header.path, io.FileIO(header.path)
    for _ in range(_MOST_TRIES):
        path = flat_file(header.path, header.columns)
        with contextlib.suppress(FileNotFoundError):
            return path, io.FileIO(path)
    raise NoRoom(
        f"{header.path}: decompressed {_MOST_TRIES} times, and others removed it from the cache each time. Raise "
        f"${LIMIT_VARIABLE} for all of them."
    )


def _places(header: Header, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return where each sequence of a packed shard stands, as `packed.places_of`."""
    places = packed.places_of(columns[layouts.NEXT_SENTENCE_WEIGHTS])
    if len(places) != header.num_rows:
        raise DamagedShardError(
            f"{header.path}: {len(places)} sequences by {layouts.NEXT_SENTENCE_WEIGHTS}, {header.num_rows} by its "
            "attribute. Build the shard again.",
            header.path,
        )
    return places
