"""Text files: a document a file, or documents separated by blank lines."""

import re
from collections.abc import Iterable, Iterator

from bert_pytorch.corpus.inputs.stretches import (
    BLANK_LINE_END,
    BLANK_LINES,
    ReadOptions,
    Source,
    Stretch,
    cut,
    read_text,
    whole,
)
from bert_pytorch.documents import LARGEST_DOCUMENT, too_large

LARGEST_FILE_DOCUMENT = 4 << 20
"""With `--documents auto`, a file with more bytes of text is taken for many documents even where it is among others."""
_SEPARATOR = re.compile(BLANK_LINES)


def divide_text(source: Source, options: ReadOptions, stretch_bytes: int) -> list[Stretch]:
    """Cut a file at blank lines, if these separate documents."""
    size = source.path.stat().st_size
    among_others = options.documents == "auto" and not source.alone and size <= LARGEST_FILE_DOCUMENT
    if options.documents == "file" or among_others:
        return [whole(source)]
    return cut(source, BLANK_LINE_END, stretch_bytes, options.encoding)


def read_text_documents(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the documents of a stretch, those between blank lines without white space around them.

    Raises:
        InputError: if one is larger than `LARGEST_DOCUMENT`, or as `read_text` does.
    """
    pieces = read_text(stretch, options)
    if options.documents == "blank_line" or (options.documents == "auto" and stretch.source.alone):
        yield from _between_blank_lines(pieces, stretch)
        return
    limit = LARGEST_DOCUMENT if options.documents == "file" else LARGEST_FILE_DOCUMENT
    begun: list[str] = []
    size = 0
    for piece in pieces:
        begun.append(piece)
        size += len(piece) if piece.isascii() else len(piece.encode())
        if size > limit and options.documents == "file":
            raise too_large(str(stretch.path))
        if size > limit or stretch.start > 0:
            yield from _between_blank_lines(_chain(begun, pieces), stretch)
            return
    if begun:
        yield _taken(begun)


def _chain(begun: list[str], pieces: Iterator[str]) -> Iterator[str]:
    while begun:
        yield begun.pop(0)
    yield from pieces


def _between_blank_lines(pieces: Iterable[str], stretch: Stretch) -> Iterator[str]:
    document: list[str] = []  # parts of the one that goes on: joined once, however long it is
    length, edge = 0, ""
    for piece in pieces:
        text, start = edge + piece, 0
        for separator in _SEPARATOR.finditer(text):
            document.append(text[start : separator.start()])
            length, start = 0, separator.end()
            if ended := _taken(document).strip():
                yield ended
        rest = text[start:]
        end = rest.rfind("\n")
        edge = rest[end:] if end >= 0 and rest[end:].isspace() else ""  # a blank line may go on in the next piece
        document.append(rest[: len(rest) - len(edge)])
        length += len(rest)
        if length > LARGEST_DOCUMENT:
            raise too_large(f"{stretch.path}: a document with no blank line in it")
    if last := _taken(document).strip():
        yield last


def _taken(parts: list[str]) -> str:
    """Join parts and let go of them: whoever gets the text may be long at it."""
    text = "".join(parts)
    parts.clear()
    return text
