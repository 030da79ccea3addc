"""One shard: its header, read once, and its rows, memory-mapped: in place, or decompressed by `shards.flat_files`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bert_pytorch.errors import DamagedShardError, InputError
from bert_pytorch.records import SequenceRows, StaticMasks
from bert_pytorch.shards import layouts, packed
from bert_pytorch.shards.flat_files import flat_file, flat_offsets
from bert_pytorch.shards.layouts import COLUMNS, Layout

_PROBED_ROWS = 256
_TOKENS_AT_ONCE = 1 << 21


class Header(NamedTuple):
    """What a shard says about itself, without its rows."""

    path: Path
    layout: Layout
    num_rows: int
    """Sequences: of the packed layout there are several in a row of the file."""
    sequence_length: int
    next_sentence: bool
    """Whether rows are pairs with a next-sentence label."""
    columns: dict[str, tuple[str, tuple[int, ...]]]
    """Dtype and shape of each dataset."""
    offsets: dict[str, int] | None
    """Byte offset of each dataset in the file; None where one is compressed or chunked."""
    attributes: dict[str, Any]
    """The file's attributes; a foreign shard has none of ours."""

    @property
    def flat_bytes(self) -> int:
        """Bytes that the shard takes in the cache; 0 where it is mapped in place."""
        return flat_offsets(self.columns)[1] if self.offsets is None else 0


def read_header(path: Path) -> Header:
    """Open a shard, recognise its layout and check its shapes.

    Raises:
        InputError: if it is not HDF5, truncated, empty, of another layout, or its datasets disagree.
    """
    if path.stat().st_size == 0:
        raise DamagedShardError(f"{path}: the file is empty (0 bytes), wanted an HDF5 shard. {_advice(path)}", path)
    try:
        with h5py.File(path, "r") as file:
            return _header_of(path, file)
    except (OSError, RuntimeError) as error:
        if isinstance(error, PermissionError):
            raise
        whole = " It seems truncated: a copy or a download that did not finish?" if "truncated" in str(error) else ""
        raise DamagedShardError(f"{path}: not a readable HDF5 file.{whole} {_advice(path)}", path) from None


def _advice(path: Path) -> str:
    ours = path.suffix == ".hdf5"
    return "Remove it or build it again." if ours else "Name a shard (*.hdf5), or a folder with shards."


def _header_of(path: Path, file: h5py.File) -> Header:
    _refuse_data_elsewhere(path, file)
    names = {name for name, item in file.items() if isinstance(item, h5py.Dataset)}
    layout = layouts.layout_of(names)
    if layout is None:
        wanted = " or ".join(f"{', '.join(columns)} ({name})" for name, columns in COLUMNS.items())
        raise InputError(f"{path}: found {_listing(names)}; wanted the datasets {wanted}.")
    columns = {name: file[name] for name in COLUMNS[layout]}
    for name, column in COLUMNS[layout].items():
        data = columns[name]
        if data.ndim != column.dimensions or data.dtype.kind not in "iub":
            wanted = f"whole numbers with {column.dimensions} dimension(s)"
            raise InputError(f"{path}: {name} has shape {data.shape} of {data.dtype}, wanted {wanted}.")
    counts = {name: data.shape[0] for name, data in columns.items()}
    if len(set(counts.values())) > 1:
        raise DamagedShardError(f"{path}: its datasets differ in rows: {counts}. Build the shard again.", path)
    rows, length = columns[layouts.INPUT_IDS].shape
    if rows == 0:
        raise DamagedShardError(f"{path}: it has no rows. Remove it.", path)
    if length > layouts.LONGEST_SEQUENCE:
        raise InputError(f"{path}: its rows have {length} tokens, wanted {layouts.LONGEST_SEQUENCE} at most.")
    return Header(
        path=path,
        layout=layout,
        num_rows=_num_sequences(path, file, rows) if layout == "packed" else rows,
        sequence_length=length,
        next_sentence=_has_pairs(file, layout),
        columns={name: (data.dtype.str, data.shape) for name, data in columns.items()},
        offsets=_offsets(columns),
        attributes={name: _plain(value) for name, value in file.attrs.items()},
    )


def _num_sequences(path: Path, file: h5py.File, rows: int) -> int:
    """Return the sequences of a packed file: by its word where it is ours, else counted."""
    slots = file[layouts.NEXT_SENTENCE_WEIGHTS].shape[1]
    found = file.attrs.get(layouts.NUM_SEQUENCES)
    if found is None:
        found = np.count_nonzero(file[layouts.NEXT_SENTENCE_WEIGHTS][:])
    if not rows <= found <= rows * slots:
        raise DamagedShardError(
            f"{path}: {found} sequences in {rows} packed rows of up to {slots}. Build the shard again.", path
        )
    return int(found)


def _refuse_data_elsewhere(path: Path, file: h5py.File) -> None:
    """Refuse what makes HDF5 open other files, or the same data twice: a shard is hostile until it is read."""
    for name in file:
        linked = not isinstance(file.get(name, getlink=True), h5py.HardLink)
        item = None if linked else file[name]
        if linked or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise InputError(
                f"{path}: {name} stands elsewhere (a link, external storage or a virtual dataset), wanted in here. "
                "Copy its data into one file."
            )


def _has_pairs(file: h5py.File, layout: Layout) -> bool:
    if "next_sentence" in file.attrs:
        return bool(file.attrs["next_sentence"])
    if layout == "native":
        return bool(file[layouts.SPECIAL_TOKEN_POSITIONS].shape[1] == 3)
    return bool(file[layouts.SEGMENT_IDS][:_PROBED_ROWS].any())  # a foreign file: single segments leave them all 0


def _offsets(columns: dict[str, h5py.Dataset]) -> dict[str, int] | None:
    offsets = {name: data.id.get_offset() for name, data in columns.items()}
    return None if any(offset is None for offset in offsets.values()) else offsets


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _listing(names: set[str]) -> str:
    return f"the datasets {', '.join(sorted(names))}" if names else "no datasets"


class OpenShard:
    """The rows of one shard, mapped; a compressed one is decompressed first, if it never was."""

    def __init__(self, header: Header) -> None:
        self.header = header
        path, offsets = header.path, header.offsets
        if offsets is None:
            path, offsets = flat_file(header.path, header.columns), flat_offsets(header.columns)[0]
        self._path = path
        whole = np.memmap(path, np.uint8, "r")  # one mapping, hence one file descriptor, a shard
        self._size = whole.size
        columns = header.columns.items()
        if any(offsets[name] + _bytes(dtype, shape) > whole.size for name, (dtype, shape) in columns):
            raise self._truncated(whole.size)
        self._columns = {name: np.ndarray(shape, dtype, whole, offsets[name]) for name, (dtype, shape) in columns}
        self._places = _places(header, self._columns) if header.layout == "packed" else None

    def columns(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Gather rows of each dataset that `rows_of` reads.

        Args:
            indices: int64 (n,), within this shard, in any order.
        """
        if self._places is not None:
            return _unpacked(self.header, self._columns, self._places[indices], indices)
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
            f"{self._path}: truncated: found {size:,} bytes, its datasets need more. {_advice(self.header.path)}",
            self.header.path,
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


def _unpacked(
    header: Header, columns: dict[str, np.ndarray], places: np.ndarray, numbers: np.ndarray
) -> dict[str, np.ndarray]:
    rows, slots = np.divmod(places, columns[layouts.NEXT_SENTENCE_WEIGHTS].shape[1])
    pad_id = int(header.attributes.get(layouts.PAD_ID, 0))
    return packed.unpack(columns, rows, slots, pad_id, header.path, numbers)


def needed_columns(header: Header) -> list[str]:
    """Return the datasets that rows are made of."""
    unused = () if header.next_sentence else (layouts.NEXT_SENTENCE_LABELS, layouts.SEGMENT_IDS)
    return [name for name in header.columns if name not in unused]


def scatter_columns(parts: list[dict[str, np.ndarray]], order: np.ndarray) -> dict[str, np.ndarray]:
    """Join what was gathered from several shards, putting row i to place `order[i]`, int64 (n,).

    Slots for masks may differ in number among shards; the others are padded with 0.
    """
    if len(parts) == 1 and (len(order) < 2 or (np.diff(order) > 0).all()):
        return parts[0]
    joined = {}
    for name, first in parts[0].items():
        width = max(part[name].shape[1:] for part in parts)
        joined[name] = np.zeros((len(order), *width), first.dtype)
        start = 0
        for part in parts:
            found = part[name]
            places = order[start : start + len(found)]
            start += len(found)
            if found.shape[1:] == width:
                joined[name][places] = found
            else:
                joined[name][places, : found.shape[1]] = found
    return joined


def read_parts(header: Header) -> Iterator[SequenceRows]:
    """Yield all rows of a shard in order, some MB at a time, straight from the file: nothing goes to the cache.

    Raises:
        InputError: if its compressed data are damaged.
    """
    rows_at_once = max(1, _TOKENS_AT_ONCE // max(1, header.sequence_length))
    number = 0
    for start in range(0, header.columns[layouts.INPUT_IDS][1][0], rows_at_once):
        columns = _columns(header, slice(start, start + rows_at_once))
        if header.layout == "packed":
            places = packed.places_of(columns[layouts.NEXT_SENTENCE_WEIGHTS])
            columns = _unpacked(header, columns, places, number + np.arange(len(places)))
            number += len(places)
        yield rows_of(header.layout, header.next_sentence, columns)


def read_rows(header: Header, indices: np.ndarray) -> SequenceRows:
    """Read a few rows straight from the file; where it is compressed, each costs a chunk.

    Args:
        header: of the shard.
        indices: int64 (n,), n > 0, within this shard, in any order, repeats allowed.

    Raises:
        InputError: if its compressed data are damaged.
    """
    if header.layout == "packed":
        weights = _columns(header, slice(None), (layouts.NEXT_SENTENCE_WEIGHTS,))[layouts.NEXT_SENTENCE_WEIGHTS]
        rows, slots = np.divmod(packed.places_of(weights)[indices], weights.shape[1])
        read, local = np.unique(rows, return_inverse=True)
        columns = _unpacked(header, _columns(header, read), local * weights.shape[1] + slots, indices)
        return rows_of(header.layout, header.next_sentence, columns)
    wanted, places = np.unique(indices, return_inverse=True)
    return rows_of(
        header.layout, header.next_sentence, {name: column[places] for name, column in _columns(header, wanted).items()}
    )


def read_cls_positions(header: Header, start: int, stop: int) -> np.ndarray:
    """Read where rows of a native shard say that [CLS] stands, int (n,): always 0, so that nothing else reads it.

    Raises:
        InputError: if its compressed data are damaged.
    """
    name = layouts.SPECIAL_TOKEN_POSITIONS
    return _columns(header, slice(start, stop), (name,))[name][:, 0]


def _columns(header: Header, which: slice | np.ndarray, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    try:
        with h5py.File(header.path, "r") as file:
            return {name: file[name][which] for name in names or header.columns}
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedShardError(
            f"{header.path}: its data cannot be read ({error}). Build it again.", header.path
        ) from None


def rows_of(layout: Layout, next_sentence: bool, columns: dict[str, np.ndarray]) -> SequenceRows:
    """Make rows of what was read of a layout's datasets."""
    native = layout == "native"
    lengths = _native_lengths(columns) if native else columns[layouts.INPUT_MASK].sum(axis=1, dtype=np.int32)
    starts, labels = lengths, None
    if next_sentence:
        starts = _native_starts(columns) if native else lengths - columns[layouts.SEGMENT_IDS].sum(1, dtype=np.int32)
        labels = columns[layouts.NEXT_SENTENCE_LABELS].astype(np.int8, copy=False)
    return SequenceRows(
        input_ids=columns[layouts.INPUT_IDS].astype(np.int32, copy=False),
        lengths=lengths,
        segment_b_starts=starts,
        next_sentence_labels=labels,
        static_masks=None if native else _static_masks(columns),
    )


def _native_lengths(columns: dict[str, np.ndarray]) -> np.ndarray:
    return columns[layouts.SPECIAL_TOKEN_POSITIONS][:, -1].astype(np.int32, copy=False) + 1


def _native_starts(columns: dict[str, np.ndarray]) -> np.ndarray:
    return columns[layouts.SPECIAL_TOKEN_POSITIONS][:, 1].astype(np.int32, copy=False) + 1


def _static_masks(columns: dict[str, np.ndarray]) -> StaticMasks:
    positions = columns[layouts.MASKED_POSITIONS].astype(np.int32, copy=False)
    used = (positions != 0).sum(axis=1, dtype=np.int32)  # position 0 is [CLS], never masked: 0 means an empty slot
    return StaticMasks(positions, columns[layouts.MASKED_IDS].astype(np.int32, copy=False), used)
