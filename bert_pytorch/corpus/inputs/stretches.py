"""A stretch: the part of one file that is read in one go, and how text and lines come out of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, NamedTuple

from bert_pytorch.corpus.inputs.compression import CHUNK_BYTES, read_chunks
from bert_pytorch.corpus.inputs.encodings import AUTO, can_divide, decode
from bert_pytorch.corpus.inputs.kinds import Kind
from bert_pytorch.documents import LARGEST_DOCUMENT, too_large

Documents = Literal["auto", "file", "blank_line"]
Quoting = Literal["auto", "double", "none"]

_UNPACKED = 4
"""Text takes about so many times the bytes it is packed in."""
LINE_END = re.compile(rb"\n")
BLANK_LINES = r"\n(?:[ \t\r\f\v]*\n)+"
"""What stands between two documents of a text file."""
BLANK_LINE_END = re.compile(BLANK_LINES.encode())


class Source(NamedTuple):
    """One input file."""

    path: Path
    kind: Kind
    alone: bool
    """Whether it was named itself or is the only text file of a folder that was named."""


class ReadOptions(NamedTuple):
    """How files are read, as far as their kind leaves a choice."""

    documents: Documents = "auto"
    """What a document is in text files."""
    text_field: str = "text"
    """Field or column that holds the text."""
    encoding: str = AUTO
    """Of files without a byte order mark."""
    quoting: Quoting = "auto"
    """Whether fields of tables may stand in double quotes; auto: in .csv they may, in .tsv not."""
    any_character: bool = True
    """Whether texts may hold NUL and halves of surrogate pairs, because cleaning replaces them."""


class Stretch(NamedTuple):
    """A part of a file: whole documents."""

    source: Source
    start: int
    """First byte, or first row group of a Parquet file."""
    end: int
    """Past the last one."""
    num_bytes: int
    """Of text, about; decides how stretches are put together to units of work."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def is_packed(self) -> bool:
        """Whether the file is compressed."""
        return self.source.kind.compression != ""

    def where(self, number: int) -> str:
        """Name a line for a message, by its number in the stretch from 1; counts the lines before the stretch."""
        before = sum(chunk.count(b"\n") for chunk in read_chunks(self.path, "", 0, self.start)) if self.start else 0
        return f"{self.path}: line {before + number}"


def whole(source: Source) -> Stretch:
    """Return the stretch of a whole file."""
    size = source.path.stat().st_size
    return Stretch(source, 0, size, size * (_UNPACKED if source.kind.compression else 1))


def cut(source: Source, ends: re.Pattern[bytes], stretch_bytes: int, encoding: str) -> list[Stretch]:
    """Cut a file into stretches of about `stretch_bytes`; one that cannot be read from the middle stays whole.

    Args:
        source: the file.
        ends: where it may be cut, `LINE_END` or `BLANK_LINE_END`.
        stretch_bytes: each stretch ends at the first place for it from so many bytes on.
        encoding: `auto`, or that of files without a byte order mark.
    """
    size = source.path.stat().st_size
    if source.kind.compression or size <= stretch_bytes or not can_divide(source.path, encoding):
        return [whole(source)]
    stretches, start = [], 0
    with source.path.open("rb") as file:
        while start < size:
            end = _next_end(file, start + stretch_bytes, ends)
            stretches.append(Stretch(source, start, min(end, size), min(end, size) - start))
            start = end
    return stretches


def _next_end(file: IO[bytes], place: int, ends: re.Pattern[bytes]) -> int:
    file.seek(place)
    edge = b""
    while chunk := file.read(CHUNK_BYTES):
        text = edge + chunk
        if found := ends.search(text):
            return place - len(edge) + found.end()
        place += len(chunk)
        last = text.rfind(b"\n")
        edge = text[last:] if last >= 0 and not text[last:].strip() else b""
    return place


def read_text(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the text of a stretch in pieces of about 1 MiB; raises as `read_chunks` and `decode` do."""
    if stretch.is_packed:
        chunks = read_chunks(stretch.path, stretch.source.kind.compression)
    else:
        chunks = read_chunks(stretch.path, "", stretch.start, stretch.end)
    return decode(chunks, stretch.path, options.encoding, stretch.start)


def read_lines(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the lines of a stretch without the LF that ends them.

    Raises:
        InputError: if a line is longer than `LARGEST_DOCUMENT`, or as `read_text` does.
    """
    pending: list[str] = []  # of a line that goes on: joined once, however long it is
    length = number = 0
    for piece in read_text(stretch, options):
        *lines, rest = piece.split("\n")
        if lines:
            yield "".join([*pending, lines[0]])
            yield from lines[1:]
            pending, length, number = [], 0, number + len(lines)
        pending.append(rest)
        length += len(rest)
        if length > LARGEST_DOCUMENT:
            raise too_large(stretch.where(number + 1))
    if length:
        yield "".join(pending)
