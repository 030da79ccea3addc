"""The fast way to a header that a manifest foretells: HDF5's own calls, checked for being just that.

`headers.read_header` is the reference: it makes h5py's objects, at 1.3 ms a shard, five times as much.  What is not as
expected in any way is left to it, so that one place decides what a shard may be and says what is wrong.
"""

import os

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5l, h5t

from bert_pytorch.shards.entries import ShardEntry
from bert_pytorch.shards.headers import Header
from bert_pytorch.shards.layouts import COLUMNS, INPUT_IDS, width_problem

_TEXT = h5t.py_create(h5py.string_dtype(), logical=True)
_BOOL = h5t.py_create(np.dtype(bool), logical=True)
_TYPES = {dtype: h5t.py_create(np.dtype(dtype)) for columns in COLUMNS.values() for dtype, _ in columns.values()}


def expected_header(entry: ShardEntry) -> Header | None:
    """Return the header of an uncompressed shard that holds what its entry says and nothing else.

    Args:
        entry: what the manifest says; its attributes are those that the header tells, the file may have more.

    Returns:
        What `read_header` tells but for other attributes; None where it must say, which is also where the file is
        hostile, damaged, compressed, of the packed layout, or of a dtype that we do not write.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if entry.layout == "packed":
        return None
    try:
        file = h5f.open(os.fsencode(entry.path), h5f.ACC_RDONLY)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError):
        return None
    try:
        return _checked(file, entry)
    except (OSError, RuntimeError, KeyError, ValueError):  # as h5py's low-level calls fail
        return None
    finally:
        file.close()


def _checked(file: h5f.FileID, entry: ShardEntry) -> Header | None:
    wanted = {**entry.attributes, "next_sentence": entry.next_sentence}
    if any(_attribute(file, name) != value for name, value in wanted.items()):
        return None
    if len(file) != len(COLUMNS[entry.layout]):
        return None
    shapes, offsets = {}, {}
    for name, column in COLUMNS[entry.layout].items():
        key = name.encode()
        if file.links.get_info(key).type != h5l.TYPE_HARD:  # others make HDF5 open what they name
            return None
        data = h5d.open(file, key)
        offset, shape = data.get_offset(), data.shape  # no offset: in chunks, in another file, virtual or absent
        if offset is None or not data.get_type().equal(_TYPES[column.dtype]):
            return None
        if len(shape) != column.dimensions or shape[0] != entry.num_rows or not entry.num_rows:
            return None
        shapes[name], offsets[name] = (column.dtype, shape), offset
    if shapes[INPUT_IDS][1][1] != entry.sequence_length:
        return None
    if width_problem({name: shape for name, (_, shape) in shapes.items()}) is not None:
        return None
    return Header(
        path=entry.path,
        layout=entry.layout,
        num_rows=entry.num_rows,
        sequence_length=entry.sequence_length,
        next_sentence=entry.next_sentence,
        columns=shapes,
        offsets=offsets,
        attributes=dict(entry.attributes),
    )


def _attribute(file: h5f.FileID, name: str) -> str | bool | None:
    """Return a scalar attribute as we write them; None where it is anything else."""
    attribute = h5a.open(file, name.encode())
    kind = attribute.get_type()
    if attribute.shape != ():
        return None
    if kind.equal(_BOOL):
        flag = np.empty((), np.int8)
        attribute.read(flag, mtype=kind)
        return bool(flag)
    if kind.equal(_TEXT):
        text = np.empty((), h5py.string_dtype())
        attribute.read(text)
        return bytes(text[()]).decode()
    return None
