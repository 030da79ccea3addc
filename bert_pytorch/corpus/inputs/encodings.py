"""Bytes to text: UTF-8, what a byte order mark says, or an encoding that was named; never a guess.

What is not text in its encoding is refused, with the place and with the encoding that it is likely in.
"""

import codecs
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from bert_pytorch.errors import InputError

AUTO = "auto"
_MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's does
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16", "utf-32")
_LINE_SAFE = (
    *("utf-8", "ascii", "iso8859", "cp125", "cp874", "koi8", "mac-"),
    *("gb", "big5", "euc", "shift_jis", "cp932", "cp949", "cp950"),
)
"""Encodings in which the byte 0x0A is the end of a line, always, and means the same wherever reading starts."""
_NO_ENCODINGS = ("utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
_SAMPLE = 64 << 10


def encoding_problem(name: str) -> str | None:
    """Say why `name` is no encoding that text can be in; None if it is one."""
    if name == AUTO:
        return None
    try:
        known = codecs.lookup(name)
        ends = "\n".encode(known.name)  # codecs from bytes to bytes, such as hex, fail here
        if known.incrementaldecoder("strict").decode(ends, True) == "\n" and known.name not in _NO_ENCODINGS:
            return None
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    return f"found {name!r}, wanted auto or an encoding that Python knows, such as utf-8, latin-1, cp1252, gb18030."


def encoding_of(head: bytes, named: str) -> tuple[str, int]:
    """Return the encoding of a file that begins with `head`, and the length of its byte order mark.

    A mark decides, whatever was named; `auto` without one is UTF-8.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    return ("utf-8" if named == AUTO else codecs.lookup(named).name), 0


def can_divide(path: Path, named: str) -> bool:
    """Tell whether a plain file can be read from any end of a line on."""
    with path.open("rb") as file:
        return encoding_of(file.read(4), named)[0].startswith(_LINE_SAFE)


def looks_like_utf8(content: bytes) -> bool:
    """Tell whether the beginning of a file holds more than ASCII and is UTF-8."""
    try:
        return not content.isascii() and bool(codecs.getincrementaldecoder("utf-8")("strict").decode(content))
    except UnicodeDecodeError:
        return False


def decode(chunks: Iterable[bytes], path: Path, named: str, offset: int = 0) -> Iterator[str]:
    """Decode a file's content strictly, chunk by chunk, without its byte order mark.

    Args:
        chunks: the content, unpacked; the first one, where `offset` is 0, holds at least four bytes or all.
        path: for messages.
        named: `auto` or an encoding's name.
        offset: place of the first byte in the content.

    Raises:
        InputError: if it is not text in this encoding or holds NUL; names the byte.
    """
    decoder, name = None, ""
    for chunk in chunks:
        if decoder is None:
            name, mark = encoding_of(_head(path) if offset else chunk[:4], named)
            decoder = codecs.getincrementaldecoder(name)("strict")
            if not offset:
                chunk, offset = chunk[mark:], mark
        yield _decoded(decoder, chunk, False, path, name, offset)
        offset += len(chunk)
    if decoder is not None:
        yield _decoded(decoder, b"", True, path, name, offset)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _decoded(decoder: codecs.IncrementalDecoder, chunk: bytes, last: bool, path: Path, name: str, offset: int) -> str:
    if not name.startswith(_WIDE) and (nul := chunk.find(b"\0")) >= 0:
        raise InputError(_told_nul(path, offset + nul))
    offset -= len(decoder.getstate()[0])
    try:
        text = decoder.decode(chunk, last)
    except UnicodeDecodeError as error:
        raise InputError(_told_undecodable(error, path, name, offset)) from None
    if (nul := text.find("\0")) >= 0:
        raise InputError(_told_nul(path, offset + len(text[:nul].encode(name))))
    return text


def _told_nul(path: Path, place: int) -> str:
    return (
        f"{path}: byte {place} is NUL (0x00): binary data, or another encoding such as UTF-16 without a byte order "
        "mark. Remove the file from the input, or name its encoding: --encoding utf-16-le"
    )


def _told_undecodable(error: UnicodeDecodeError, path: Path, name: str, offset: int) -> str:
    byte = f"0x{error.object[error.start]:02x}"
    found = f"{path}: byte {offset + error.start} is {byte}, which is not {name.upper()} text there."
    if name != "utf-8":
        return f"{found} Name the encoding it is in with --encoding."
    around = error.object[max(0, error.start - _SAMPLE // 2) : error.start + _SAMPLE // 2]
    likely = _likely_encoding(around)
    likely, told = (likely, f"It looks like {likely}") if likely else ("cp1252", "Many such files are cp1252")
    return (
        f"{found} {told}: look at some lines and read it with --encoding {likely} (which goes for all of the input but "
        f"files with a byte order mark), or convert it: iconv -f {likely.upper().replace('_', '-')} -t UTF-8 "
        f"{shlex.quote(str(path))} > NEW"
    )


def _likely_encoding(sample: bytes) -> str | None:
    try:
        import charset_normalizer  # an extra: only words of a message depend on it
    except ImportError:
        return None
    best = charset_normalizer.from_bytes(sample).best()
    return None if best is None or best.encoding in ("utf_8", "ascii") else best.encoding
