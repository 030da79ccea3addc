"""Parts of a `.bz2` file, decompressed on their own: any number of processes share one file, of one stream or many.

A stream is a row of blocks of at most 900 kB, each beginning with a mark of 48 bits at any bit of the file.  A block
belongs to the range of bytes in which its mark begins, and is decompressed as a stream of its own, checksum and all.
A mark that stands in compressed data by chance would end the reading with an error: one dump of 20 GB in 50,000.
"""

import bz2
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bert_pytorch.errors import InputError

_BLOCK_MARK, _END_MARK = 0x314159265359, 0x177245385090
_MARK_BITS, _CHECKSUM_BITS, _HEADER_BITS = 48, 32, 32
_BLOCK_LIMIT = 900_000
_READ_BYTES = 1 << 20
_LONGEST_BLOCK = 2 << 20
"""Compressed bytes; incompressible 900,000 bytes and their tables take less."""
_PIECE_BYTES = 1 << 20


def read_range(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Decompress the blocks that begin at bytes `start` to `end` of a file, in pieces of at most 1 MiB.

    Ranges that together cover the file give its whole content, wherever they are cut.

    Raises:
        InputError: if the file is damaged, ends early, or is not bzip2.
    """
    with path.open("rb") as file:
        marks = _marks(file, _BLOCK_MARK, start * 8, None)
        first = next(marks, None)
        if first is None and start == 0:
            raise InputError(f"{path}: not a bzip2 file, or empty. Copy or download it again.")
        if start == 0 and first != _HEADER_BITS and not _begins_empty(file):
            raise InputError(f"{path}: damaged near byte 4 (no block begins). Copy or download it again.")
        while first is not None and first < end * 8:
            following = next(marks, None)
            yield from _decompress(file, path, first, _end_of_block(file, path, first, following))
            first = following


def _begins_empty(file: BinaryIO) -> bool:
    """Whether the file's first stream has no block."""
    return next(_marks(file, _END_MARK, _HEADER_BITS, _HEADER_BITS + 1), None) is not None


def _marks(file: BinaryIO, mark: int, start: int, end: int | None) -> Iterator[int]:
    """Yield the bits of a file, from `start` to `end`, at which a mark begins."""
    base = start // 8
    overlap = 16  # bytes: a mark and the header that is looked at
    while end is None or base * 8 < end:
        file.seek(base)
        size = _READ_BYTES if end is None else min(_READ_BYTES, end // 8 + 1 - base)
        content = file.read(size + overlap)
        for bit in sorted(_marks_in(content, mark)):
            place = base * 8 + bit
            if start <= place and (end is None or place < end) and bit < size * 8:
                yield place
        if len(content) < size + overlap:
            return
        base += size


def _marks_in(content: bytes, mark: int) -> Iterator[int]:
    for bit in range(8):  # of a byte: the mark's whole bytes there are looked for, then all of it
        inner = (mark << (8 - bit)).to_bytes(7, "big")[bit > 0 : 6]
        place = content.find(inner)
        while place >= 0:
            begin = (place - (bit > 0)) * 8 + bit
            if begin >= 0 and _is_mark(content, begin, mark):
                yield begin
            place = content.find(inner, place + 1)


def _is_mark(content: bytes, begin: int, mark: int) -> bool:
    """Whether the mark is there and, after a block's, a header: not randomised, a possible origin."""
    head = int.from_bytes(content[begin // 8 : begin // 8 + 15].ljust(15, b"\0"), "big")
    head = (head >> (120 - 105 - begin % 8)) & ((1 << 105) - 1)  # 48 mark, 32 checksum, 1 randomised, 24 origin
    if head >> 57 != mark:
        return False
    return mark != _BLOCK_MARK or (not head >> 24 & 1 and head & 0xFFFFFF < _BLOCK_LIMIT)


def _end_of_block(file: BinaryIO, path: Path, first: int, following: int | None) -> int:
    """Return the bit past a block: where the next one begins, or where the stream ends before that."""
    if following is not None and not _is_header(file, following):
        return following
    header = file.seek(0, 2) * 8 if following is None else following - _HEADER_BITS
    end = following
    while (mark := _stream_end_before(file, header)) is not None and mark > first:
        end = mark
        if not _is_header(file, mark):
            break
        header = mark - _HEADER_BITS  # a stream without a block
    if end is None:
        raise InputError(f"{path}: ended before the end-of-stream mark of bzip2: cut off? Copy or download it again.")
    return end


def _stream_end_before(file: BinaryIO, place: int) -> int | None:
    """Return where the mark begins that ends a stream right before a bit: mark, checksum, and the rest of a byte."""
    last = place - _MARK_BITS - _CHECKSUM_BITS
    return next(_marks(file, _END_MARK, max(last - 7, 0), last + 1), None)


def _is_header(file: BinaryIO, mark: int) -> bool:
    """Whether a stream's header, four whole bytes, stands right before a mark."""
    if mark % 8 or mark < _HEADER_BITS:
        return False
    file.seek((mark - _HEADER_BITS) // 8)
    head = file.read(_HEADER_BITS // 8)
    return head[:3] == b"BZh" and head[3:].isdigit()


def _decompress(file: BinaryIO, path: Path, first: int, end: int) -> Iterator[bytes]:
    place = first // 8
    if end - first > _LONGEST_BLOCK * 8:
        raise InputError(f"{path}: damaged near byte {place} (no block ends). Copy or download it again.")
    stream = _as_stream(file, first, end)
    decompressor = bz2.BZ2Decompressor()
    try:
        while not decompressor.eof:
            piece = decompressor.decompress(stream, _PIECE_BYTES)
            stream = b""
            if not piece and decompressor.needs_input:
                raise OSError("a block has no end")
            if piece:
                yield piece
        if decompressor.unused_data:
            raise OSError("more follows a block: the mark of the next one is damaged")
    except OSError as error:
        raise InputError(f"{path}: damaged near byte {place} ({error}). Copy or download it again.") from None


def _as_stream(file: BinaryIO, first: int, end: int) -> bytes:
    """Make a stream of one block: header, block, end mark, and the stream's checksum, which is the block's."""
    place, length = first // 8, end - first
    file.seek(place)
    bits = int.from_bytes(file.read(-(-end // 8) - place), "big") >> (-end % 8)
    bits &= (1 << length) - 1
    checksum = bits >> (length - _MARK_BITS - _CHECKSUM_BITS) & 0xFFFFFFFF
    bits = (((bits << _MARK_BITS) | _END_MARK) << _CHECKSUM_BITS) | checksum
    length += _MARK_BITS + _CHECKSUM_BITS
    padding = -length % 8
    return b"BZh9" + (bits << padding).to_bytes((length + padding) // 8, "big")
