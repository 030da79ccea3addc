"""Parquet files: one column is the text of documents, divided at row groups, read without the other columns."""

from collections.abc import Iterator
from typing import Any

from bert_pytorch.corpus.inputs.characters import unwanted_character
from bert_pytorch.corpus.inputs.stretches import LARGEST_DOCUMENT, ReadOptions, Source, Stretch, too_large
from bert_pytorch.errors import InputError, MissingDependencyError

_BATCH_BYTES, _MOST_ROWS = 4 << 20, 16
"""Few rows: a text that stands in many is stored once, so that 10 kB of a file can be 1 GB of them.  Reading as a
dictionary takes more memory where one is given up within a column, as pyarrow does, and fails on DELTA encodings."""
_READ_BYTES = 1 << 20


def divide_parquet(source: Source, options: ReadOptions, stretch_bytes: int) -> list[Stretch]:
    """Make a stretch of each row group, of the size of its text; raises as `read_parquet` does."""
    stretches = []
    with _open(source) as file:
        column = _find_column(source, file, options.text_field)
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).column(column).total_uncompressed_size
            stretches.append(Stretch(source, group, group + 1, size))
    return stretches


def read_parquet(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the text of each row; that of null is empty.

    Raises:
        InputError: if the file is damaged, has no such column, or a text in it is not UTF-8 or too large.
        MissingDependencyError: if pyarrow is not installed.
    """
    with _open(stretch.source) as file:
        column = _find_column(stretch.source, file, options.text_field)
        for group in range(stretch.start, stretch.end):
            for number, text in enumerate(_texts(file, group, column, stretch.source)):
                if text and len(text) > LARGEST_DOCUMENT:
                    raise too_large(_where(stretch, group, number))
                if text and not options.any_character and (found := unwanted_character(text)):
                    where = _where(stretch, group, number)
                    raise InputError(f"{where} holds {found}. Mend it, or let cleaning replace it (--clean).")
                yield text or ""


def _where(stretch: Stretch, group: int, row: int) -> str:
    return f"{stretch.path}: row {row} of row group {group} (both from 0)"


def _open(source: Source) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{source.path}: reading it needs pyarrow, which is not installed. "
            "Install it: pip install -r requirements-extras.txt"
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(source.path, buffer_size=_READ_BYTES, pre_buffer=False)
    except pyarrow.ArrowException as error:
        raise _damaged(source, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(source, error) from None


def _damaged(source: Source, error: Exception) -> InputError:
    return InputError(f"{source.path}: not a whole Parquet file ({error}). Copy or download it again.")


def _find_column(source: Source, file: Any, name: str) -> int:
    """Return the index among the file's columns; `a.b` is field b of the column a."""
    columns = [file.schema.column(index) for index in range(len(file.schema.names))]
    paths = [column.path for column in columns]
    if name not in paths:
        shown = ", ".join(paths[:20]) + (", …" if len(paths) > 20 else "")
        raise InputError(
            f'{source.path}: no column "{name}", it has: {shown[:1000]}. Name the column of the text with --text_field.'
        )
    column = columns[paths.index(name)]
    if column.logical_type.type not in ("STRING", "JSON", "ENUM") or column.max_repetition_level:
        kind = column.logical_type.type
        found = "a list" if column.max_repetition_level else kind if kind != "NONE" else column.physical_type
        raise InputError(f'{source.path}: column "{name}" is {found}, wanted STRING. Name another --text_field.')
    return paths.index(name)


def _texts(file: Any, group: int, column: int, source: Source) -> Iterator[str | None]:
    import pyarrow

    metadata = file.metadata.row_group(group)
    row_bytes = metadata.column(column).total_uncompressed_size // max(metadata.num_rows, 1)
    rows = min(max(_BATCH_BYTES // max(row_bytes, 1), 1), _MOST_ROWS)
    path = file.schema.column(column).path
    try:
        for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=[path], use_threads=False):
            array = batch.column(0)
            for name in path.split(".")[1:] if pyarrow.types.is_struct(array.type) else ():
                array = _member(array, name)
            for value in array:
                yield value.as_py()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(source, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(source, error) from None


def _member(array: Any, name: str) -> Any:
    import pyarrow.compute

    return pyarrow.compute.struct_field(array, name)
