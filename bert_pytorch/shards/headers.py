"""What a shard says about itself: its layout, shapes and attributes, and where its datasets stand in the file."""

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bert_pytorch.errors import DamagedShardError, InputError
from bert_pytorch.shards import layouts
from bert_pytorch.shards.flat_files import flat_offsets, num_bytes
from bert_pytorch.shards.layouts import COLUMNS, Layout

_PROBED_ROWS = 256
_MOST_EXPANSION = 2048
"""Times that data grow when decompressed; DEFLATE manages 1,032 at most, of zeros alone."""


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
        raise DamagedShardError(f"{path}: the file is empty (0 bytes), wanted an HDF5 shard. {advice_for(path)}", path)
    try:
        with h5py.File(path, "r") as file:
            return _header_of(path, file)
    except (OSError, RuntimeError, TypeError) as error:  # TypeError: whole numbers of three bytes, and the like
        if isinstance(error, PermissionError):
            raise
        whole = " It seems truncated: a copy or a download that did not finish?" if "truncated" in str(error) else ""
        raise DamagedShardError(f"{path}: not a readable HDF5 file.{whole} {advice_for(path)}", path) from None


def advice_for(path: Path) -> str:
    """Say what to do about a file that is no readable shard."""
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
    problem = layouts.width_problem({name: data.shape for name, data in columns.items()})
    if problem is not None:
        raise DamagedShardError(f"{path}: {problem}. Build the shard again.", path)
    _refuse_bloat(path, columns)
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


def _refuse_bloat(path: Path, columns: dict[str, h5py.Dataset]) -> None:
    """Refuse datasets that no file of this size can hold, before they fill memory or the disk."""
    size, found = path.stat().st_size, sum(num_bytes(data.dtype.str, data.shape) for data in columns.values())
    if found > _MOST_EXPANSION * size:
        raise DamagedShardError(
            f"{path}: its datasets have {found:,} bytes, more than a file of {size:,} can hold. Build it again.", path
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


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _listing(names: set[str]) -> str:
    return f"the datasets {', '.join(sorted(names))}" if names else "no datasets"
