"""The file of tokens: what tokenizing leaves, mapped into memory by every later start.

Layout, little-endian: a header of 64 bytes; T tokens, uint16 or int32, and zeros for one longest sequence more; from
the next multiple of 8 on, S + 1 offsets, int64, of sequences among the tokens.
"""

import os
import struct
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_pytorch.data.texts.cutting import FlatSequences
from bert_pytorch.errors import InputError

FORMAT_VERSION = 1

_HEADER = struct.Struct("<8sIIIQQ")
_MAGIC, _HEADER_BYTES = b"BPTOKENS", 64
_LENGTHS_AT_ONCE = 1 << 20


class TokenFile(NamedTuple):
    """A mapped file of S sequences."""

    windows: np.ndarray
    """(T, longest), row t is the tokens from t on; overlapping views of the file."""
    offsets: np.ndarray
    """int64 (S + 1,), sequence s is the tokens from `offsets[s]` to `offsets[s + 1]`."""


def write_token_file(path: Path, blocks: Iterable[FlatSequences], dtype: np.dtype, longest: int) -> int:
    """Write sequences block after block, with memory for one of them; return how many there were.

    Args:
        path: written anew.
        blocks: sequences in order.
        dtype: of the tokens, uint16 or int32.
        longest: tokens of a sequence at most.
    """
    count = total = 0
    # The lengths of a hundred million sequences do not fit into the memory of a small machine.
    with path.open("wb") as file, tempfile.TemporaryFile(dir=path.parent) as lengths:
        file.write(bytes(_HEADER_BYTES))
        for block in blocks:
            file.write(np.ascontiguousarray(block.tokens, dtype).data)
            lengths.write(np.ascontiguousarray(block.lengths, "<u2").data)
            count, total = count + len(block.lengths), total + len(block.tokens)
        file.write(bytes(longest * dtype.itemsize))
        file.write(bytes(-file.tell() % 8))
        file.write(np.zeros(1, "<i8").data)
        lengths.seek(0)
        end = 0
        while part := lengths.read(2 * _LENGTHS_AT_ONCE):
            ends = end + np.cumsum(np.frombuffer(part, "<u2"), dtype="<i8")
            file.write(ends.data)
            end = int(ends[-1])
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, FORMAT_VERSION, dtype.itemsize, longest, count, total))
    return count


def open_token_file(path: Path) -> TokenFile:
    """Map a file of tokens.

    Raises:
        InputError: if it is not whole.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
        if len(head) == _HEADER_BYTES:
            magic, version, itemsize, longest, count, total = _HEADER.unpack_from(head)
            tokens_end = _HEADER_BYTES + (total + longest) * itemsize
            begin = -(-tokens_end // 8) * 8
            wanted = (_MAGIC, FORMAT_VERSION, begin + 8 * (count + 1))
            if (magic, version, size) == wanted and itemsize in (2, 4):
                mapped = np.memmap(file, np.uint8, "r")
                tokens = mapped[_HEADER_BYTES:tokens_end].view("<u2" if itemsize == 2 else "<i4")
                windows = np.lib.stride_tricks.sliding_window_view(np.asarray(tokens), longest)
                return TokenFile(windows, np.asarray(mapped[begin:].view("<i8")))
    raise damaged(path)


def damaged(path: Path) -> InputError:
    """Return the error for a file of tokens that is not what was written."""
    return InputError(f"{path}: not a whole file of tokens. Remove it; the next start makes it anew from the text.")
