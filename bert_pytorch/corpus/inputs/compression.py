"""A file's bytes, unpacked, in chunks: memory does not depend on its size, however well it is packed."""

import bz2
import gzip
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO

from bert_pytorch.corpus.inputs.kinds import COMPRESSION_NAMES, Compression
from bert_pytorch.errors import InputError, MissingDependencyError

CHUNK_BYTES = 1 << 20
_ZSTD_WINDOW = 128 << 20
"""The largest window of Zstandard that is unpacked (`zstd --long=27`); the format allows far more."""
_ZSTD_PIECE = 4 << 10
"""Packed bytes unpacked at a time: a few bytes may become 128 KiB, so that these become at most some 100 MB."""


def read_chunks(
    path: Path, compression: Compression, start: int = 0, end: int | None = None
) -> Generator[bytes, None, None]:
    """Yield the unpacked content of a file in chunks of about 1 MiB.

    Args:
        path: the file.
        compression: how it is packed.
        start: first byte, of a file that is not packed.
        end: past the last byte; None, to the end.

    Raises:
        InputError: if it is damaged or cut off.
        MissingDependencyError: if it needs zstandard and that is not installed.
    """
    try:
        with path.open("rb") as file:
            if compression == "":
                file.seek(start)
                yield from _plain(file, None if end is None else end - start)
            elif compression == "gz":
                with gzip.open(file, "rb") as unpacked:
                    yield from _plain(unpacked, None)
            elif compression == "bz2":
                yield from _unpack_bzip2(file)
            else:
                yield from _gathered(_unpack_zstd(file, path))
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the file system
        raise InputError(
            f"{path}: not a whole {COMPRESSION_NAMES[compression]} file ({error}). Copy or download it again."
        ) from None


def _plain(file: IO[bytes] | gzip.GzipFile, length: int | None) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES if length is None else min(CHUNK_BYTES, length)):
        yield chunk
        if length is not None:
            length -= len(chunk)


def _unpack_bzip2(file: IO[bytes]) -> Iterator[bytes]:
    # bz2.open takes a damaged second stream, and all after it, for rubbish behind the file.
    unpacker, packed = None, b""
    while True:
        if not packed and (unpacker is None or unpacker.needs_input):
            packed = file.read(CHUNK_BYTES)
            if not packed:
                break
        unpacker = unpacker or bz2.BZ2Decompressor()
        if piece := unpacker.decompress(packed, CHUNK_BYTES):
            yield piece
        packed = b""
        if unpacker.eof:
            packed, unpacker = unpacker.unused_data, None
    if unpacker is not None:
        raise EOFError("it ends within a stream")


def _unpack_zstd(file: IO[bytes], path: Path) -> Iterator[bytes]:
    # zstandard's stream_reader takes a file that is cut off for a whole one: frames are followed here.
    try:
        import zstandard
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading it needs zstandard, which is not installed. "
            "Install it: pip install -r requirements-extras.txt"
        ) from error
    unpacker, frame = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW), None
    try:
        while piece := file.read(_ZSTD_PIECE):
            while piece:
                frame = frame or unpacker.decompressobj()
                yield frame.decompress(piece)
                piece, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as error:
        advice = (
            f"Windows up to {_ZSTD_WINDOW >> 20} MiB are read: pack it anew without --long or --ultra."
            if "too much memory" in str(error)
            else "Copy or download it again."
        )
        raise InputError(f"{path}: it cannot be unpacked ({error}). {advice}") from None
    if frame is not None:
        raise EOFError("it ends within a frame")


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)
