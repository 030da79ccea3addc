"""What is in formatted text and how the work on it is divided: from the input alone, whatever the number of processes.

Formatted text: UTF-8, one sentence a line, blank lines between documents.  A document's place is known by two byte
offsets, so that a plan for any corpus is a few integers a document and a worker reads only its own part.
"""

import hashlib
import itertools
import mmap
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.errors import InputError
from bert_pytorch.progress import Progress
from bert_pytorch.shards.layouts import MANIFEST, UNFINISHED, VOCABULARY_RECORD

_BLANK_LINES = re.compile(rb"\n(?:[ \t\r\f\v]*\n)+")
SMALLEST_BLOCK, LARGEST_BLOCK = 1 << 20, 16 << 20
"""Bytes of text in a block where nobody says how many: 1/16 of all, within these limits."""
_DOCUMENTS_A_BLOCK = 16
"""Random second segments come from the other documents of a block."""
_READ_BYTES, _READ_GAP = 4 << 20, 64
_GROUP_BYTES, _FILE_COST = 32 << 20, 64 << 10
"""Bytes of the files searched by one task, and what opening one counts for."""
_NO_TEXT = (MANIFEST, VOCABULARY_RECORD)
"""Files whose folder holds a set of shards or a vocabulary."""


class DocumentTable(NamedTuple):
    """Where the D documents of some files are."""

    files: tuple[Path, ...]
    """The files, in order."""
    file_indices: np.ndarray
    """int32 (D,), index into `files`."""
    starts: np.ndarray
    """int64 (D,), offset of the first byte."""
    ends: np.ndarray
    """int64 (D,), offset past the last byte."""
    sha256: str
    """Of all files' contents, in order."""

    def take(self, indices: np.ndarray) -> "DocumentTable":
        """Return the table of some of the documents."""
        return self._replace(
            file_indices=self.file_indices[indices], starts=self.starts[indices], ends=self.ends[indices]
        )

    def compact(self) -> "DocumentTable":
        """Return the same table without the files that no document is in: a task carries its own files only."""
        used, indices = np.unique(self.file_indices, return_inverse=True)
        return self._replace(
            files=tuple(self.files[index] for index in used.tolist()), file_indices=indices.astype(np.int32)
        )

    @property
    def num_documents(self) -> int:
        """Documents, D."""
        return len(self.starts)

    @property
    def num_bytes(self) -> int:
        """Bytes of all documents."""
        return int((self.ends - self.starts).sum())


class Block(NamedTuple):
    """A unit of work: whole documents that one worker reads."""

    name: str
    """Of what the block becomes, without a suffix."""
    number: int
    """Position among all blocks of the plan; part of every random draw."""
    documents: DocumentTable


def text_files(paths: Sequence[Path], output: Path | None = None) -> list[Path]:
    """List files given by name, and `*.txt` under folders given, sorted by path within each.

    Vocabularies and sets of shards, which hold a `vocab.txt`, and what lies under `output` are no text.

    Raises:
        InputError: if a path does not exist, a folder holds no text, or holds text that is not finished.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*.txt") if file.is_file() and _is_text(file, path, output))
            for folder in dict.fromkeys([path, *(file.parent for file in inside)]):
                if (folder / UNFINISHED).exists():
                    raise InputError(
                        f"{folder}: its formatting is not finished (it has {UNFINISHED}). Start that stage again first."
                    )
            if not inside:
                raise InputError(f"{path}: no text (*.txt) in this folder. Name a folder or file with text.")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"{path}: there is no such file or folder. Check the spelling of the path.")
    unique: dict[Path, Path] = {}
    for file in files:
        unique.setdefault(file.resolve(), file)  # copies could stand on both sides of the held-out split
    return list(unique.values())


def _is_text(file: Path, below: Path, output: Path | None) -> bool:
    if any(part.startswith(".") for part in file.relative_to(below).parts):
        return False
    if (
        output is not None
        and output.resolve() in file.resolve().parents
        and below.resolve() in output.resolve().parents
    ):
        return False
    folder = file.parent
    return not folder.name.startswith("sequences_") and not any((folder / name).exists() for name in _NO_TEXT)


def find_documents(files: Sequence[Path], pool: PoolConfig | None = None) -> DocumentTable:
    """Find the documents of formatted files, in order; nothing but offsets is kept in memory: 20 bytes a document.

    Args:
        files: formatted text.
        pool: searches many files at a time; None, in this process.
    """
    with Progress("find documents", sum(path.stat().st_size for path in files)) as progress:
        pool = pool if pool is not None else PoolConfig(processes=1)
        groups = _groups(files)
        searched = run_tasks(_search, groups, pool, lambda group: str(group[0]), progress, _size)
    found = [places for group in searched for places in group]
    owners = [np.full(len(places.starts), index, np.int32) for index, places in enumerate(found)]
    digest = hashlib.sha256()
    for places in found:
        digest.update(places.sha256)
    return DocumentTable(
        tuple(files),
        np.concatenate([np.empty(0, np.int32), *owners]),
        np.concatenate([np.empty(0, np.int64), *(places.starts for places in found)]),
        np.concatenate([np.empty(0, np.int64), *(places.ends for places in found)]),
        digest.hexdigest(),
    )


class _Places(NamedTuple):
    starts: np.ndarray
    ends: np.ndarray
    sha256: bytes


def _groups(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """Put files together to tasks: for one small file, sending it to a process costs more than reading it."""
    groups: list[list[Path]] = []
    room = 0
    for path in files:
        size = path.stat().st_size + _FILE_COST
        if size > room:
            groups.append([])
            room = max(_GROUP_BYTES, size)
        groups[-1].append(path)
        room -= size
    return [tuple(group) for group in groups]


def _size(group: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in group)


def _search(group: Sequence[Path]) -> list[_Places]:
    return [_places(path) for path in group]


def _places(path: Path) -> _Places:
    starts, ends, size = array("q"), array("q"), path.stat().st_size  # lists would take 70 bytes a document
    digest = hashlib.sha256()
    if size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            digest.update(content)
            for start, end in _documents_of(content, size):
                starts.append(start)
                ends.append(end)
    return _Places(np.array(starts, np.int64), np.array(ends, np.int64), digest.digest())


def _documents_of(content: mmap.mmap, size: int) -> Iterator[tuple[int, int]]:
    start = 0
    for separator in _BLANK_LINES.finditer(content):
        if _has_text(content, start, separator.start()):
            yield start, separator.start()
        start = separator.end()
    if _has_text(content, start, size):
        yield start, size


def _has_text(content: mmap.mmap, start: int, end: int) -> bool:
    return bool(content[start : min(start + 64, end)].strip() or content[start:end].strip())


def hold_out(documents: DocumentTable, fraction: float, seed: int) -> tuple[DocumentTable, DocumentTable]:
    """Split into training and held-out documents, round(fraction × D) of the latter but at least one of two or more."""
    count = documents.num_documents
    held = min(max(1, round(fraction * count)), count - 1) if fraction > 0 else 0
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng([seed, 0]).permutation(count)[:held]] = True
    return documents.take(np.flatnonzero(~chosen)), documents.take(np.flatnonzero(chosen))


def divide(documents: DocumentTable, prefix: str, block_bytes: int = 0, first_number: int = 0) -> list[Block]:
    """Divide documents, in order, into blocks of about equal bytes, at most `block_bytes` and one document each.

    Args:
        documents: the documents.
        prefix: start of each block's name; a running number follows.
        block_bytes: text of a block; 0 takes 1/16 of the documents or 16 average ones, between 1 and 16 MiB.
        first_number: number of the first block.
    """
    if documents.num_documents == 0:
        return []
    total = documents.num_bytes
    mean = total // documents.num_documents
    limit = block_bytes or min(max(total // 16, _DOCUMENTS_A_BLOCK * mean, SMALLEST_BLOCK), LARGEST_BLOCK)
    sizes = documents.ends - documents.starts
    centre = np.cumsum(sizes) - sizes + (sizes - 1) // 2
    share = total / -(-total // limit)
    _, firsts = np.unique(centre // share, return_index=True)
    edges = itertools.pairwise([*firsts.tolist(), documents.num_documents])
    tables = [documents.take(np.arange(start, stop)).compact() for start, stop in edges]
    return [Block(f"{prefix}{index}", first_number + index, table) for index, table in enumerate(tables)]


def read_documents(documents: DocumentTable) -> Iterator[list[str]]:
    """Yield the lines of each document, stripped, empty ones left out.

    Raises:
        InputError: if the text is not UTF-8 or holds NUL bytes; names the file and the byte's offset.
    """
    for _, _, text in read_raw_documents(documents):
        yield [line for line in map(str.strip, text.split("\n")) if line]


def read_raw_documents(documents: DocumentTable) -> Iterator[tuple[Path, int, str]]:
    """Yield file, offset and text of each document, neighbours read together; raises as `read_documents` does."""
    opened, content, base = -1, b"", 0
    columns = (documents.file_indices, documents.starts, documents.ends, _read_ends(documents))
    for owner, start, end, read_end in zip(*(column.tolist() for column in columns), strict=True):
        path = documents.files[owner]
        if owner != opened or end > base + len(content):
            with path.open("rb") as file:
                file.seek(start)
                content, base, opened = file.read(read_end - start), start, owner
        yield path, start, decode_text(content[start - base : end - base], path, start)


def _read_ends(documents: DocumentTable) -> np.ndarray:
    """For each document, where a read that starts with it should end: past the neighbours that follow it closely."""
    owners, starts, ends = (c.tolist() for c in (documents.file_indices, documents.starts, documents.ends))
    for index in range(len(ends) - 2, -1, -1):
        near = owners[index] == owners[index + 1] and starts[index + 1] - ends[index] <= _READ_GAP
        if near and ends[index + 1] - starts[index] <= _READ_BYTES:
            ends[index] = ends[index + 1]
    return np.array(ends, np.int64)


def decode_text(content: bytes, path: Path, offset: int = 0) -> str:
    """Decode UTF-8 text, a byte order mark left out; `offset` is the place of `content` in the file, for messages.

    Raises:
        InputError: if it is not UTF-8, or holds NUL bytes.
    """
    nul = content.find(b"\0")
    if nul >= 0:
        raise InputError(
            f"{path}: byte {offset + nul} is NUL (0x00): binary data, or another encoding such as UTF-16. Remove the "
            f"file from the input, or convert it: iconv -f UTF-16 -t UTF-8 '{path}' > NEW"
        )
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {offset + error.start} is 0x{content[error.start]:02x}, which is not UTF-8 text there. "
            f"Remove the file from the input, or convert it, for example: iconv -f ISO-8859-1 -t UTF-8 '{path}' > NEW"
        ) from None
