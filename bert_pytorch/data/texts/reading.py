"""Documents out of files of text, in blocks that bound memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.columnar.arrow import arrow_texts, check_arrow
from bert_pytorch.columnar.parquet import ParquetTexts

BLOCK_CHARACTERS = 1 << 20
"""A block is full from so many on: much for the tokenizer, little for the memory."""
BLOCK_DOCUMENTS = 1 << 14
"""Empty texts have no characters."""

_FLAG = "--text_column"


class TextBlock(NamedTuple):
    """Documents that follow one another."""

    texts: list[str]
    """Without those that are null or empty."""
    num_bytes: int
    """Of the files, in the measure of `total_bytes`."""


def total_bytes(paths: Sequence[Path], column: str) -> int:
    """Return how much there is to read: unpacked bytes of the column in Parquet, bytes of the file in Arrow.

    Raises:
        InputError: if a file is damaged, or has no such column of text.
    """
    total = 0
    for path in paths:
        if path.suffix == ".arrow":
            check_arrow(path, column, _FLAG)
            total += path.stat().st_size
        else:
            with ParquetTexts(path, column, _FLAG) as file:
                total += sum(map(file.num_bytes, range(file.num_groups)))
    return total


def read_blocks(paths: Sequence[Path], column: str) -> Iterator[TextBlock]:
    """Yield all documents of files in order.

    Raises:
        InputError: if a file is damaged, has no such column of text, or a text in it is not UTF-8 or too large.
    """
    texts: list[str] = []
    characters = done = 0
    for text, size in _documents(paths, column):
        done += size
        if text:
            texts.append(text)
            characters += len(text)
        if characters >= BLOCK_CHARACTERS or len(texts) >= BLOCK_DOCUMENTS:
            yield TextBlock(texts, done)
            texts, characters, done = [], 0, 0
    yield TextBlock(texts, done)


def _documents(paths: Sequence[Path], column: str) -> Iterator[tuple[str | None, int]]:
    """Yield each text with the bytes that have been read since the one before it."""
    for path in paths:
        if path.suffix == ".arrow":
            for batch in arrow_texts(path, column, _FLAG):
                yield from ((text, 0) for text in batch.texts)
                yield None, batch.num_bytes
            continue
        with ParquetTexts(path, column, _FLAG) as file:
            for group in range(file.num_groups):
                each, rest = divmod(file.num_bytes(group), max(file.num_rows(group), 1))
                yield from ((text, each) for text in file.texts(group))
                yield None, rest
