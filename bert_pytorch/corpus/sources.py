"""What kinds of text can be formatted, and how they are divided into units of work of bounded size.

A kind of file is a format and a compression (`inputs.kinds`).  Two functions for each format (`FORMATS`) divide a file
into stretches and read a stretch as documents; a compressed file is one stretch, but for Wikipedia dumps.  Stretches in
the order of the input are put together to units: from the input alone, whatever the number of processes.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.inputs.compression import read_chunks
from bert_pytorch.corpus.inputs.encodings import encoding_of, looks_like_utf8
from bert_pytorch.corpus.inputs.json_lines import divide_json_lines, read_json_lines
from bert_pytorch.corpus.inputs.kinds import KNOWN_ENDINGS, Format, content_problem, kind_of
from bert_pytorch.corpus.inputs.parquet import divide_parquet, read_parquet
from bert_pytorch.corpus.inputs.stretches import ReadOptions, Source, Stretch
from bert_pytorch.corpus.inputs.tables import divide_table, read_table
from bert_pytorch.corpus.inputs.text import divide_text, read_text_documents
from bert_pytorch.corpus.inputs.wikipedia import divide_dump, read_dump
from bert_pytorch.errors import InputError
from bert_pytorch.progress import Progress

logger = logging.getLogger(__name__)

SMALLEST_UNIT, LARGEST_UNIT = 1 << 20, 16 << 20
"""Bytes of text in a unit of work: 1/16 of all, within these limits."""
_HASH_STRETCH = 64 << 20
_HASH_SERIALLY = 256 << 20
"""Starting processes takes longer than to hash so many bytes."""
_MOST_NAMED = 20


class FormatReader(NamedTuple):
    """How files of one format are read."""

    divide: Callable[[Source, ReadOptions, int], list[Stretch]]
    """Source, options and wanted bytes of a stretch to its stretches, in order."""
    read: Callable[[Stretch, ReadOptions], Iterator[str]]
    """A stretch to its documents, in order."""


FORMATS: dict[Format, FormatReader] = {
    "text": FormatReader(divide_text, read_text_documents),
    "jsonl": FormatReader(divide_json_lines, read_json_lines),
    "csv": FormatReader(divide_table, read_table),
    "tsv": FormatReader(divide_table, read_table),
    "parquet": FormatReader(divide_parquet, read_parquet),
    "wikipedia": FormatReader(divide_dump, read_dump),
}


class Unit(NamedTuple):
    """A unit of work: some documents that become one or several files of formatted text."""

    name: str
    stretches: tuple[Stretch, ...]
    options: ReadOptions

    @property
    def num_bytes(self) -> int:
        """Bytes of text, about."""
        return sum(stretch.num_bytes for stretch in self.stretches)

    def describe(self) -> str:
        """Name the files it reads."""
        names = list(dict.fromkeys(str(stretch.path) for stretch in self.stretches))
        return f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''}"


def find_sources(paths: Sequence[Path], output: Path | None = None) -> list[Source]:
    """List input files: those named, and under folders all with a known ending, sorted by path.

    Under folders hidden files are left out, and plain `.json`: it is seldom text, often notes about files beside it.

    Args:
        paths: files and folders.
        output: a folder that is left out where it lies in one of these.

    Raises:
        InputError: if a path does not exist, has an unknown ending, a folder holds none of them, or the first bytes of
            files are not those of what their names say; names all of these.
    """
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            inside = [
                (file, kind)
                for file in sorted(path.rglob("*"))
                if file.suffix != ".json"
                and (kind := kind_of(file))
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and (output is None or not file.absolute().is_relative_to(output.absolute()))
            ]
            texts = sum(kind.format == "text" for _, kind in inside)
            sources += [Source(file, kind, kind.format == "text" and texts == 1) for file, kind in inside]
            if not inside:
                raise InputError(
                    f"{path}: no input in this folder; wanted files ending in {KNOWN_ENDINGS}; plain "
                    ".json is read only where it is named itself."
                )
        elif not path.exists():
            raise InputError(f"{path}: there is no such file or folder. Check the spelling of the path.")
        elif kind := kind_of(path):
            sources.append(Source(path, kind, True))
        else:
            raise InputError(f"{path}: what kind of text is this? Wanted a name that ends in {KNOWN_ENDINGS}.")
    unique: dict[Path, Source] = {}
    for source in sources:
        unique.setdefault(source.path.resolve(), source)
    if len(unique) < len(sources):
        logger.info("%d file(s) named more than once are read once", len(sources) - len(unique))
    sources = list(unique.values())
    problems = [problem for source in sources if (problem := content_problem(source.path, source.kind))]
    if problems:
        more = [f"… and {len(problems) - _MOST_NAMED} more"] if len(problems) > _MOST_NAMED else []
        raise InputError("\n  - ".join(problems[:_MOST_NAMED] + more))
    return sources


def plan_units(sources: Sequence[Source], options: ReadOptions) -> list[Unit]:
    """Divide sources into units, from the input alone; documents stay in its order.

    Raises:
        InputError, MissingDependencyError: if a file cannot be divided, as Parquet that is damaged.
    """
    _tell_documents(sources, options)
    _tell_suspicious(sources, options)
    total = sum(source.path.stat().st_size for source in sources)
    unit_bytes = min(max(total // 16, SMALLEST_UNIT), LARGEST_UNIT)
    units: list[list[Stretch]] = []
    room = 0
    for source in sources:
        for stretch in FORMATS[source.kind.format].divide(source, options, unit_bytes):
            if stretch.num_bytes > room or not units:
                units.append([])
                room = unit_bytes
            units[-1].append(stretch)
            room -= stretch.num_bytes
    return [Unit(f"formatted_{number:05d}", tuple(unit), options) for number, unit in enumerate(units)]


def _tell_documents(sources: Sequence[Source], options: ReadOptions) -> None:
    texts = [source for source in sources if source.kind.format == "text"]
    alone = sum(source.alone for source in texts) if options.documents == "auto" else 0
    if alone:
        logger.info("%d text file(s): documents separated by blank lines (--documents blank_line)", alone)
    if len(texts) > alone:
        said = {
            "auto": "one document a file, where it is not large (--documents file)",
            "file": "one document a file",
            "blank_line": "documents separated by blank lines",
        }
        logger.info("%d text file(s): %s", len(texts) - alone, said[options.documents])


def _tell_suspicious(sources: Sequence[Source], options: ReadOptions) -> None:
    """Warn of files that look like UTF-8 although another encoding is named, which decodes them to other characters."""
    if encoding_of(b"", options.encoding)[0] == "utf-8":
        return
    suspicious = []
    for source in sources:
        if source.kind.format not in ("parquet", "wikipedia"):
            with contextlib.closing(read_chunks(source.path, source.kind.compression)) as chunks:
                head = next(chunks, b"")
            if encoding_of(head, options.encoding)[0] == encoding_of(b"", options.encoding)[0] and looks_like_utf8(
                head
            ):
                suspicious.append(str(source.path))
    if suspicious:
        logger.warning(
            "%d file(s) look like UTF-8 but are read as %s, as --encoding says (%s%s). Is that meant?",
            len(suspicious),
            options.encoding,
            ", ".join(suspicious[:3]),
            " …" if len(suspicious) > 3 else "",
        )


def read_unit(unit: Unit) -> Iterator[str]:
    """Yield the documents of a unit; raises as the readers of `FORMATS` do."""
    for stretch in unit.stretches:
        yield from FORMATS[stretch.source.kind.format].read(stretch, unit.options)


def hash_files(paths: Sequence[Path], pool: PoolConfig) -> str:
    """Hash the contents of files, in order: SHA-256 of the places and SHA-256 of every 64 MiB."""
    sizes = [path.stat().st_size for path in paths]
    parts = [
        _Part(path, start, min(start + _HASH_STRETCH, size))
        for path, size in zip(paths, sizes, strict=True)
        for start in range(0, max(size, 1), _HASH_STRETCH)
    ]
    if sum(sizes) < _HASH_SERIALLY:
        digests = [_hash_part(part) for part in parts]
    else:
        with Progress("hash input", sum(sizes)) as progress:
            digests = run_tasks(
                _hash_part, parts, pool, lambda part: str(part.path), progress, lambda part: part.end - part.start
            )
    whole = hashlib.sha256()
    for part, digest in zip(parts, digests, strict=True):
        whole.update(part.start.to_bytes(8, "little") + part.end.to_bytes(8, "little") + digest)
    return whole.hexdigest()


class _Part(NamedTuple):
    path: Path
    start: int
    end: int


def _hash_part(part: _Part) -> bytes:
    digest = hashlib.sha256()
    for chunk in read_chunks(part.path, "", part.start, part.end):
        digest.update(chunk)
    return digest.digest()
