"""Arrow streams (`*.arrow`) as Hugging Face's `datasets` writes them: the texts of one column, batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.columnar.library import is_too_large, load_pyarrow, naming_damage
from bert_pytorch.columnar.parquet import no_such_column
from bert_pytorch.documents import too_large
from bert_pytorch.errors import InputError

_ROWS_AT_ONCE = 64
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
"""A stream cut off between two batches is one of fewer batches to pyarrow (Arrow columnar format, IPC streaming)."""


class TextBatch(NamedTuple):
    """A few texts that follow one another."""

    texts: list[str | None]
    num_bytes: int
    """Bytes of the file up to the next batch; over all batches about its size."""


def arrow_texts(path: Path, column: str, flag: str) -> Iterator[TextBatch]:
    """Yield the texts of an Arrow stream that is mapped into memory.

    Args:
        path: the file.
        column: a column of type string or large_string.
        flag: the option that names the column, for messages.

    Raises:
        InputError: if the file is damaged, has no such column of text, or a text in it is not UTF-8 or too large.
        MissingDependencyError: if pyarrow is not installed.
    """
    pyarrow = load_pyarrow(path)
    number = done = 0
    with naming_damage(path, "Arrow"), pyarrow.memory_map(str(path)) as mapped:
        index = _find_column(path, mapped, column, flag)
        only = pyarrow.ipc.IpcReadOptions(included_fields=[index], use_threads=False)
        for batch in pyarrow.ipc.open_stream(mapped, options=only):
            array = batch.column(0)
            array.validate(full=True)  # offsets that lead out of the file would end the process
            for start in range(0, len(array), _ROWS_AT_ONCE):
                texts = array[start : start + _ROWS_AT_ONCE].to_pylist()
                for row, text in enumerate(texts):
                    if is_too_large(text):
                        raise too_large(f"{path}: row {number + row} (from 0)")
                number += len(texts)
                size = mapped.tell() - done if start + _ROWS_AT_ONCE >= len(array) else 0
                done += size
                yield TextBatch(texts, size)


def check_arrow(path: Path, column: str, flag: str) -> None:
    """Raise what `arrow_texts` would raise before its first text."""
    pyarrow = load_pyarrow(path)
    with naming_damage(path, "Arrow"), pyarrow.memory_map(str(path)) as mapped:
        _find_column(path, mapped, column, flag)


def _find_column(path: Path, mapped: Any, name: str, flag: str) -> int:
    pyarrow = load_pyarrow(path)
    schema = pyarrow.ipc.open_stream(mapped).schema
    mapped.seek(mapped.size() - len(_END_OF_STREAM))
    if mapped.read() != _END_OF_STREAM:
        raise pyarrow.ArrowInvalid("its end is missing")
    mapped.seek(0)
    if schema.names.count(name) != 1:
        raise no_such_column(path, schema.names, name, flag)
    found = schema.field(name).type
    if not (pyarrow.types.is_string(found) or pyarrow.types.is_large_string(found)):
        raise InputError(f'{path}: column "{name}" is {str(found)[:100]}, wanted string. Name another {flag}.')
    return int(schema.get_field_index(name))
