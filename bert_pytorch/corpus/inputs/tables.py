"""Tables of text: .csv and .tsv with a header row, one column is the text of documents.

Fields in double quotes, which may hold ends of lines, are usual in .csv (RFC 4180) and mean nothing in .tsv (IANA's
text/tab-separated-values).  Where they may occur, no end of a line is for certain one of a row, and a file is read as
one stream; without them it is divided at lines.
"""

import csv
from collections.abc import Iterator

from bert_pytorch.corpus.inputs.stretches import (
    LINE_END,
    ReadOptions,
    Source,
    Stretch,
    cut,
    read_lines,
    whole,
)
from bert_pytorch.documents import LARGEST_DOCUMENT, too_large
from bert_pytorch.errors import InputError

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_MOST_NAMED = 20
_Row = tuple[int, list[str]]


def divide_table(source: Source, options: ReadOptions, stretch_bytes: int) -> list[Stretch]:
    """Cut a table without quotes at the ends of lines; one that may have them stays whole."""
    if _has_quotes(source, options):
        return [whole(source)]
    return cut(source, LINE_END, stretch_bytes, options.encoding)


def read_table(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the text of each row.

    Raises:
        InputError: if the column is missing, a row has more or fewer fields than the header, quotes are not closed, a
            row is longer than `LARGEST_DOCUMENT`, or as `read_lines` does.
    """
    rows = _rows(stretch, options)
    if stretch.start:
        header = next(_rows(stretch._replace(start=0), options), None)
    else:
        header = next(rows, None)
    if header is None:
        return
    columns = header[1]
    column = _find_column(stretch, columns, options.text_field)
    for number, row in rows:
        if len(row) != len(columns):
            raise InputError(
                f"{stretch.where(number)}: {len(row)} field(s), wanted {len(columns)} as in the header. Are the quotes "
                "right, and the --quoting (double or none)?"
            )
        yield row[column]


def _find_column(stretch: Stretch, columns: list[str], name: str) -> int:
    if columns.count(name) == 1:
        return columns.index(name)
    shown = ", ".join(columns[:_MOST_NAMED]) + (", …" if len(columns) > _MOST_NAMED else "")
    found = "two columns" if name in columns else "no column"
    raise InputError(
        f'{stretch.path}: {found} "{name}" in its header row, which has: {shown[:1000]}. Name the column of the text '
        "with --text_field; a table without a header needs one."
    )


def _has_quotes(source: Source, options: ReadOptions) -> bool:
    return options.quoting == "double" or (options.quoting == "auto" and source.kind.format == "csv")


def _rows(stretch: Stretch, options: ReadOptions) -> Iterator[_Row]:
    """Yield the rows that are not empty, each with the number of its last line."""
    delimiter = _DELIMITERS[stretch.source.kind.format]
    lines = read_lines(stretch, options)
    if not _has_quotes(stretch.source, options):
        for number, line in enumerate(lines, start=1):
            if line := line.removesuffix("\r"):
                yield number, line.split(delimiter)
        return
    csv.field_size_limit(LARGEST_DOCUMENT)  # of this process: the module has no other way
    row_size, begun = 0, 1

    def counted() -> Iterator[str]:
        nonlocal row_size
        for line in lines:
            row_size += len(line) + 1
            if row_size > LARGEST_DOCUMENT:  # quotes that are never closed take in all that follows
                raise too_large(f"{stretch.where(begun)}: the row that begins there")
            yield line + "\n"

    reader = csv.reader(counted(), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
            row_size, begun = 0, reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{stretch.where(reader.line_num)}: not a row of a table ({error}); the row begins in line {begun}. Mend "
            "its quotes, or name --quoting none if they mean nothing."
        ) from None
