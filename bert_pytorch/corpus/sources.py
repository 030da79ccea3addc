"""What kinds of text can be formatted, and how each is divided into units of work of bounded size.

Text files        one document a file, or documents separated by blank lines
JSON lines        one document a line, plain (divided at lines) or `.gz` (one unit, read as a stream)
Wikipedia dumps   divided at bzip2 blocks, read through wikiextractor by `corpus.wikipedia`
"""

import gzip
import hashlib
import json
import logging
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from bert_pytorch.corpus.plan import Block, DocumentTable, decode_text, divide, find_documents, read_raw_documents
from bert_pytorch.corpus.wikipedia import part_ends, read_articles
from bert_pytorch.errors import InputError

logger = logging.getLogger(__name__)

Documents = Literal["auto", "file", "blank_line"]
Kind = Literal["text", "jsonl", "jsonl.gz", "wikipedia"]

_ENDINGS: dict[str, Kind] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".xml.bz2": "wikipedia",
}
STRETCH_BYTES = 1 << 20
"""JSON lines are divided at the first end of a line after every so many bytes."""
_LARGEST_DOCUMENT = 4 << 20
"""With `--documents auto`, a larger file is taken for many documents even where it stands among others."""


class Source(NamedTuple):
    """One input file."""

    path: Path
    kind: Kind
    alone: bool
    """Whether it was named itself or is the only text file of a folder that was named."""


class Unit(NamedTuple):
    """A unit of work: some documents of one kind that become one file of formatted text."""

    name: str
    kind: Kind
    documents: DocumentTable
    """Of documents (text), of stretches of whole lines (jsonl), of one whole file (jsonl.gz), or of one part of a dump
    (wikipedia)."""
    text_field: str

    @property
    def num_bytes(self) -> int:
        """Bytes of input."""
        return self.documents.num_bytes

    def describe(self) -> str:
        """Name the files it reads."""
        names = [str(self.documents.files[index]) for index in np.unique(self.documents.file_indices)]
        return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """List input files: those named, and under folders all with a known ending, sorted by path.

    Raises:
        InputError: if a path does not exist, has an unknown ending, or a folder holds none of them.
    """
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            inside = [(file, kind) for file in sorted(path.rglob("*")) if (kind := _kind_of(file)) and file.is_file()]
            texts = sum(kind == "text" for _, kind in inside)
            sources += [Source(file, kind, kind == "text" and texts == 1) for file, kind in inside]
            if not inside:
                raise InputError(f"{path}: no input in this folder; wanted files ending in {', '.join(_ENDINGS)}.")
        elif not path.exists():
            raise InputError(f"{path}: there is no such file or folder. Check the spelling of the path.")
        elif kind := _kind_of(path):
            sources.append(Source(path, kind, True))
        else:
            raise InputError(f"{path}: what kind of text is this? Wanted a name that ends in {', '.join(_ENDINGS)}.")
    return sources


def _kind_of(path: Path) -> Kind | None:
    if path.name.startswith("."):
        return None
    return next((kind for ending, kind in _ENDINGS.items() if path.name.endswith(ending)), None)


def hash_files(paths: Sequence[Path]) -> str:
    """Hash the contents of files, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def plan_units(sources: Sequence[Source], documents: Documents, text_field: str) -> list[Unit]:
    """Divide text and JSON-lines sources into units, from the input alone.

    Args:
        sources: in order; units follow it kind by kind.
        documents: what a document is in text files: the whole `file`, what stands between `blank_line`s, or `auto`: a
            file among others is one document unless it is larger than 4 MiB; a lone or a larger one is split at its
            blank lines.
        text_field: the field of JSON lines that holds the text.
    """
    whole = [source.path for source in sources if source.kind == "text" and _is_one_document(source, documents)]
    taken = set(whole)
    split = [source.path for source in sources if source.kind == "text" and source.path not in taken]
    if whole:
        logger.info("%d text file(s): one document a file (--documents file)", len(whole))
    if split:
        logger.info("%d text file(s): documents separated by blank lines (--documents blank_line)", len(split))
    lines = [source.path for source in sources if source.kind == "jsonl"]
    packed = [source.path for source in sources if source.kind == "jsonl.gz"]
    units: list[Unit] = []
    for kind, table in (
        ("text", _whole_files(whole)),
        ("text", find_documents(split)),
        ("jsonl", _stretches(lines)),
    ):
        units += [_unit(len(units) + index, kind, block, text_field) for index, block in enumerate(divide(table, ""))]
    for path in packed:
        units.append(_unit(len(units), "jsonl.gz", Block("", 0, _whole_files([path])), text_field))
    for path in (source.path for source in sources if source.kind == "wikipedia"):
        parts = _parts_of_dump(path)
        units += [
            _unit(len(units) + index, "wikipedia", Block("", 0, parts.take(np.array([index]))), text_field)
            for index in range(parts.num_documents)
        ]
    return units


def _parts_of_dump(path: Path) -> DocumentTable:
    ends = part_ends(path)
    starts = np.array([0, *ends[:-1]], np.int64)
    return DocumentTable((path,), np.zeros(len(ends), np.int32), starts, np.array(ends, np.int64), "")


def _unit(number: int, kind: str, block: Block, text_field: str) -> Unit:
    return Unit(f"formatted_{number:05d}", kind, block.documents, text_field)  # type: ignore[arg-type]


def _is_one_document(source: Source, documents: Documents) -> bool:
    if documents == "auto":
        return not source.alone and source.path.stat().st_size <= _LARGEST_DOCUMENT
    return documents == "file"


def _whole_files(paths: Sequence[Path]) -> DocumentTable:
    sizes = np.array([path.stat().st_size for path in paths], np.int64)
    return DocumentTable(tuple(paths), np.arange(len(paths), dtype=np.int32), np.zeros_like(sizes), sizes, "")


def _stretches(paths: Sequence[Path]) -> DocumentTable:
    """Cut files into stretches of whole lines."""
    owners, starts, ends = [], [], []
    for index, path in enumerate(paths):
        size, start = path.stat().st_size, 0
        with path.open("rb") as file:
            while start < size:
                file.seek(start + STRETCH_BYTES)
                file.readline()
                end = min(file.tell(), size)
                owners.append(index)
                starts.append(start)
                ends.append(end)
                start = end
    return DocumentTable(
        tuple(paths), np.array(owners, np.int32), np.array(starts, np.int64), np.array(ends, np.int64), ""
    )


def read_unit(unit: Unit) -> Generator[str, None, None]:
    """Yield the documents of a unit.

    Raises:
        InputError: if they are not UTF-8, hold NUL, or a line is not a JSON object with the text field.
    """
    if unit.kind == "jsonl.gz":
        yield from _read_packed(unit.documents.files[int(unit.documents.file_indices[0])], unit.text_field)
        return
    if unit.kind == "wikipedia":
        yield from read_articles(unit.documents.files[0], int(unit.documents.starts[0]), int(unit.documents.ends[0]))
        return
    for path, start, text in read_raw_documents(unit.documents):
        if unit.kind == "text":
            yield text
        else:
            place = start
            for line in text.split("\n"):
                if line.strip():
                    yield _text_of(line, f"{path}: the line at byte {place}", unit.text_field)
                place += len(line.encode()) + 1


def _read_packed(path: Path, text_field: str) -> Iterator[str]:
    place = 0
    try:
        with gzip.open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = decode_text(line, path, place)
                place += len(line)
                if text.strip():
                    yield _text_of(text, f"{path}: line {number}", text_field)
    except (EOFError, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file ({error}). Copy or download it again.") from None


def _text_of(line: str, where: str, text_field: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}). Mend or remove it.") from None
    if not isinstance(record, dict):
        raise InputError(f'{where} is a {type(record).__name__}, wanted an object such as {{"{text_field}": "…"}}.')
    if text_field not in record:
        raise InputError(
            f'{where} has no "{text_field}", only {", ".join(record) or "nothing"}. Name its --text_field.'
        )
    text = record[text_field]
    if not isinstance(text, str):
        raise InputError(f'{where}: "{text_field}" is a {type(text).__name__}, wanted a text.')
    if "\0" in text:
        raise InputError(f'{where}: "{text_field}" holds a NUL character: binary data? Mend or remove the line.')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"\\u{ord(text[error.start]):04x}"
        raise InputError(f'{where}: "{text_field}" holds {found}, half of a surrogate pair. Mend the line.') from None
    return text
