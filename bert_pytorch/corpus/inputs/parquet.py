"""Parquet files: one column is the text of documents, divided at row groups, read without the other columns."""

from collections.abc import Iterator

from bert_pytorch.columnar.parquet import ParquetTexts
from bert_pytorch.corpus.inputs.characters import unwanted_character
from bert_pytorch.corpus.inputs.stretches import ReadOptions, Source, Stretch
from bert_pytorch.errors import InputError

_FLAG = "--text_field"


def divide_parquet(source: Source, options: ReadOptions, stretch_bytes: int) -> list[Stretch]:
    """Make a stretch of each row group, of the size of its text; raises as `read_parquet` does."""
    with ParquetTexts(source.path, options.text_field, _FLAG) as file:
        return [Stretch(source, group, group + 1, file.num_bytes(group)) for group in range(file.num_groups)]


def read_parquet(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the text of each row; that of null is empty.

    Raises:
        InputError: if the file is damaged, has no such column, or a text in it is not UTF-8 or too large.
        MissingDependencyError: if pyarrow is not installed.
    """
    with ParquetTexts(stretch.path, options.text_field, _FLAG) as file:
        for group in range(stretch.start, stretch.end):
            for number, text in enumerate(file.texts(group)):
                if text and not options.any_character and (found := unwanted_character(text)):
                    where = file.where(group, number)
                    raise InputError(f"{where} holds {found}. Mend it, or let cleaning replace it (--clean).")
                yield text or ""
