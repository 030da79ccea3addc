"""Parquet files: the texts of one column, row group by row group."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_pytorch.columnar.library import is_too_large, load_pyarrow, naming_damage
from bert_pytorch.documents import too_large
from bert_pytorch.errors import InputError

_BATCH_BYTES, _MOST_ROWS = 4 << 20, 16
"""Few rows: a text that stands in many is stored once, so that 10 kB of a file can be 1 GB of them.  Reading as a
dictionary takes more memory where one is given up within a column, as pyarrow does, and fails on DELTA encodings."""
_READ_BYTES = 1 << 20


class ParquetTexts:
    """One column of text of a Parquet file; closes the file at the end of a `with`.

    Args:
        path: the file.
        column: its name; `a.b` is field b of the column a.
        flag: the option that names the column, for messages.

    Raises:
        InputError: if the file is damaged, or has no such column of text.
        MissingDependencyError: if pyarrow is not installed.
    """

    def __init__(self, path: Path, column: str, flag: str) -> None:
        pyarrow = load_pyarrow(path)
        self._path = path
        with naming_damage(path, "Parquet"):
            self._file = pyarrow.parquet.ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
        self._column = _find_column(path, self._file, column, flag)

    @property
    def num_groups(self) -> int:
        """Row groups of the file."""
        return int(self._file.num_row_groups)

    def num_rows(self, group: int) -> int:
        """Return the rows of a group."""
        return int(self._file.metadata.row_group(group).num_rows)

    def num_bytes(self, group: int) -> int:
        """Return the bytes that the column takes in a group once unpacked; a repeated text may count once."""
        return int(self._file.metadata.row_group(group).column(self._column).total_uncompressed_size)

    def texts(self, group: int) -> Iterator[str | None]:
        """Yield the text of each row of a group; memory does not depend on the size of the group.

        Raises:
            InputError: if the group is damaged, or a text in it is not UTF-8 or too large.
        """
        pyarrow = load_pyarrow(self._path)
        row_bytes = self.num_bytes(group) // max(self.num_rows(group), 1)
        rows = min(max(_BATCH_BYTES // max(row_bytes, 1), 1), _MOST_ROWS)
        path = self._file.schema.column(self._column).path
        number = 0
        with naming_damage(self._path, "Parquet"):
            for batch in self._file.iter_batches(
                batch_size=rows, row_groups=[group], columns=[path], use_threads=False
            ):
                array = batch.column(0)
                for name in path.split(".")[1:] if pyarrow.types.is_struct(array.type) else ():
                    array = pyarrow.compute.struct_field(array, name)
                for value in array:
                    text = value.as_py()
                    if is_too_large(text):
                        raise too_large(self.where(group, number))
                    number += 1
                    yield text

    def where(self, group: int, row: int) -> str:
        """Name a row for a message."""
        return f"{self._path}: row {row} of row group {group} (both from 0)"

    def __enter__(self) -> "ParquetTexts":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _find_column(path: Path, file: Any, name: str, flag: str) -> int:
    columns = [file.schema.column(index) for index in range(len(file.schema.names))]
    paths = [column.path for column in columns]
    if name not in paths:
        raise no_such_column(path, paths, name, flag)
    column = columns[paths.index(name)]
    if column.logical_type.type not in ("STRING", "JSON", "ENUM") or column.max_repetition_level:
        kind = column.logical_type.type
        found = "a list" if column.max_repetition_level else kind if kind != "NONE" else column.physical_type
        raise InputError(f'{path}: column "{name}" is {found}, wanted STRING. Name another {flag}.')
    return paths.index(name)


def no_such_column(path: Path, names: list[str], name: str, flag: str) -> InputError:
    """Return the error for a column that a file lacks, telling those that it has."""
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return InputError(f'{path}: no column "{name}", it has: {shown[:1000]}. Name the column of the text with {flag}.')
