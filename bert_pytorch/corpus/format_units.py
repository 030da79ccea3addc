"""One unit of input to files of formatted text, and the sign that they are whole."""

import hashlib
import itertools
import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bert_pytorch.corpus.cleaning import CleanStep, clean
from bert_pytorch.corpus.sentences import Newlines, SplitterName, load_splitter, split_document
from bert_pytorch.corpus.sources import Unit, read_unit
from bert_pytorch.files import atomic_path, atomic_write_json, remove_partial_files

FILE_BYTES = 32 << 20
"""A file of formatted text is closed with the document that takes it past this size."""
WORK_FOLDER = ".work"
"""What a build needs until it is finished, beside its products."""

_BATCH = 4096
"""Sentences written at a time."""
COUNTS = ("documents", "sentences", "blank_documents", "duplicates", "nul_characters", "half_surrogates")


class FormatTask(NamedTuple):
    """One unit of work and where its text goes."""

    unit: Unit
    folder: Path
    newlines: Newlines
    splitter: SplitterName
    parameters_sha256: str
    """Of the splitter's parameters, by which workers know those that they have loaded; empty where it has none."""
    clean_steps: tuple[CleanStep, ...]
    duplicates: np.ndarray
    """int64, numbers of the unit's documents that are left out, ascending; blank documents have none."""

    def part_file(self, part: int) -> Path:
        """One of the unit's files of text."""
        return self.folder / (f"{self.unit.name}_{part:04d}.txt" if part else f"{self.unit.name}.txt")

    @property
    def num_bytes(self) -> int:
        """Bytes of input, about."""
        return self.unit.num_bytes

    def describe(self) -> str:
        """Name the input."""
        return self.unit.describe()

    def finished(self) -> dict[str, Any] | None:
        """Return what `format_unit` noted about the unit, if it is finished and its files are there."""
        try:
            note = json.loads(_note_path(self.folder, self.unit.name).read_text(encoding="utf-8"))
            there = all((self.folder / file["name"]).stat().st_size == file["bytes"] for file in note["files"])
        except (FileNotFoundError, ValueError):
            return None
        return note if there else None


def _note_path(folder: Path, unit: str) -> Path:
    return folder / WORK_FOLDER / "units" / f"{unit.removeprefix('formatted_')}.json"


def format_unit(task: FormatTask) -> None:
    """Write the formatted text of one unit, then the note that says so."""
    counts = dict.fromkeys(COUNTS, 0)
    documents = _formatted(task, counts)
    files: list[dict[str, Any]] = []
    for first in documents:
        files.append(_write_file(task.part_file(len(files)), itertools.chain([first], documents)))
    atomic_write_json(_note_path(task.folder, task.unit.name), {"files": files, "counts": counts})


def _formatted(task: FormatTask, counts: dict[str, int]) -> Iterator[Iterator[bytes]]:
    """Yield each document that has a sentence, in pieces, to be taken before the next document is."""
    splitter = load_splitter(task.folder, task.splitter, task.parameters_sha256)
    left_out = set(task.duplicates.tolist())
    for number, text in enumerate(clean_documents(task.unit, task.clean_steps, counts)):
        if number in left_out:
            counts["duplicates"] += 1
            continue
        pieces = _pieces(split_document(text, splitter, task.newlines), counts)
        if first := next(pieces, b""):
            counts["documents"] += 1
            yield itertools.chain([first], pieces)


def _pieces(sentences: Iterator[str], counts: dict[str, int]) -> Iterator[bytes]:
    while batch := list(itertools.islice(sentences, _BATCH)):
        counts["sentences"] += len(batch)
        yield ("\n".join(batch) + "\n").encode()


def clean_documents(
    unit: Unit, steps: tuple[CleanStep, ...], counts: dict[str, int] | None = None
) -> Generator[str, None, None]:
    """Yield the documents of a unit, cleaned, without those that hold nothing but white space."""
    counts = counts if counts is not None else dict.fromkeys(COUNTS, 0)
    for document in read_unit(unit):
        text, nul, surrogates = clean(document, steps)
        counts["nul_characters"] += nul
        counts["half_surrogates"] += surrogates
        if not text or text.isspace():
            counts["blank_documents"] += 1
        else:
            yield text


def _write_file(path: Path, documents: Iterator[Iterator[bytes]]) -> dict[str, Any]:
    size, digest = 0, hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for document in documents:
            for content in itertools.chain([b"\n"] if size else [], document):
                file.write(content)
                digest.update(content)
                size += len(content)
            if size >= FILE_BYTES:
                break
    return {"name": path.name, "bytes": size, "sha256": digest.hexdigest()}


def prepare_work_folder(folder: Path) -> None:
    """Clear what killed writers left among the notes."""
    for inside in (folder / WORK_FOLDER).glob("*/"):
        remove_partial_files(inside)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def restore_notes(folder: Path, record: dict[str, Any]) -> bool:
    """Tell whether a finished build has lost files or parts of them, and note again which of its units are whole."""
    files = record["files"]
    lost = {file["unit"] for file in files if not _is_whole(folder / file["name"], file["bytes"])}
    if not lost:
        return False
    for unit, counts in record["units"].items():
        if unit not in lost:
            own = [{key: file[key] for key in ("name", "bytes", "sha256")} for file in files if file["unit"] == unit]
            atomic_write_json(_note_path(folder, unit), {"files": own, "counts": counts})
    return True
