"""Text of many kinds to formatted text: one sentence a line, blank lines between documents, UTF-8."""

import contextlib
import io
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.progress import Progress
from bert_pytorch.corpus.sentences import (
    PARAMETERS_FILE,
    Newlines,
    SplitterName,
    load_splitter,
    prepare_splitter,
    split_document,
)
from bert_pytorch.corpus.sources import Documents, Source, Unit, find_sources, hash_files, plan_units, read_unit
from bert_pytorch.corpus.wikipedia import check_dump
from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_text, exclusive_lock, sha256_of

logger = logging.getLogger(__name__)

RECORD = "formatted.json"
_VERSION = 1
_FILE_BYTES = 32 << 20
"""A file of formatted text is closed with the document that takes it past this size."""
_SAMPLED_UNITS = 16


class FormatConfig(PoolConfig):
    """Split text into sentences: one a line, a blank line between documents."""

    input: tuple[Path, ...] = ()
    """Files (*.txt, *.jsonl, *.jsonl.gz, Wikipedia's *.xml.bz2) or folders with such files."""
    output: Path | None = None
    """Folder for the formatted text."""
    documents: Documents = "auto"
    """What a document is in *.txt: file, the whole file; blank_line, what stands between blank lines; auto: a file
    among others is one document (unless larger than 4 MiB), a lone or larger one is split at its blank lines."""
    newlines: Newlines = "auto"
    """What the end of a line means inside a paragraph: break, a sentence ends; join, nothing (text wrapped at a fixed
    width); auto decides for each document."""
    text_field: str = "text"
    """Field of JSON lines that holds the text."""
    splitter: SplitterName = "nltk"
    """What splits paragraphs into sentences: nltk (Punkt); nupunkt (an extra: English, knows legal citations); newline
    (every line is a sentence)."""
    splitter_parameters: Path | None = None
    """Use this punkt.json of another build, instead of pretrained or learnt parameters."""
    language: str = "english"
    """Whose pretrained Punkt parameters are used where NLTK has them installed."""
    splitter_sample_bytes: int = Field(4_000_000, gt=0)
    """Text that Punkt learns from where nothing pretrained is installed: some 5 s; three times as much moved one border
    in 1,000 in a mixture of encyclopedia, speeches and reviews, and none within one of them."""
    seed: int = Field(12345, ge=0)
    """Seed of that sample."""
    overwrite: bool = False
    """Remove what an earlier build left in the output folder and start anew."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "input_dir": "--input",
        "output_dir": "--output",
        "nproc": "--processes",
        "dataset": "--input (the kind of text is recognised by the file's name)",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name text, a file or a folder."
        if self.output is None:
            yield "--output is missing: name a folder for the formatted text."
        if self.splitter != "nltk" and self.splitter_parameters is not None:
            yield f"--splitter_parameters is for --splitter nltk, not {self.splitter}: leave it out."
        if self.splitter == "newline" and self.newlines == "join":
            yield "--splitter newline takes every line for a sentence: --newlines join would join them. Leave one out."


class FormatTask(NamedTuple):
    """One unit of work and where its text goes."""

    unit: Unit
    folder: Path
    newlines: Newlines
    splitter: SplitterName

    @property
    def first_file(self) -> Path:
        """The unit's first file, which is written last: it says that the others are there."""
        return self.folder / f"{self.unit.name}.txt"

    def part_file(self, part: int) -> Path:
        """The unit's further files."""
        return self.first_file if part == 0 else self.folder / f"{self.unit.name}_{part:04d}.txt"

    @property
    def num_bytes(self) -> int:
        """Bytes of input."""
        return self.unit.num_bytes

    def describe(self) -> str:
        """Name the input."""
        return self.unit.describe()


def format_text(config: FormatConfig) -> Path:
    """Format text into `config.output` and return that folder; finished work is left as it is.

    Raises:
        InputError: if the input cannot be used, or the folder holds another build.
    """
    assert config.output is not None
    folder = config.output
    sources = find_sources(config.input)
    settings: dict[str, Any] = {
        name: getattr(config, name)
        for name in ("documents", "newlines", "text_field", "splitter", "language", "splitter_sample_bytes", "seed")
    }
    if config.splitter_parameters is not None:
        settings["splitter_parameters"] = sha256_of(config.splitter_parameters)
    for dump in (source.path for source in sources if source.kind == "wikipedia"):
        check_dump(dump)
    content = hash_files([source.path for source in sources])
    layout = [[source.kind, source.alone] for source in sources]
    fingerprint = fingerprint_of(_VERSION, settings, content, layout)
    build = Build(folder, RECORD, fingerprint, settings, ("formatted_*.txt", PARAMETERS_FILE))
    with exclusive_lock(folder, "builds"):
        if config.overwrite:
            build.clear()
        if not build.needs_work() and not _forget_incomplete_units(folder):
            logger.info("%s: finished already, nothing to do", folder)
            return folder
        with build.in_work():
            _format_sources(sources, folder, config)
            build.finish(_record(folder, settings, fingerprint, content))
    return folder


def _format_sources(sources: list[Source], folder: Path, config: FormatConfig) -> None:
    units = plan_units(sources, config.documents, config.text_field)
    prepare_splitter(
        folder,
        config.language,
        lambda: _sample(units, config.splitter_sample_bytes, config.seed),
        config.splitter,
        config.splitter_parameters,
    )
    newlines: Newlines = "break" if config.splitter == "newline" else config.newlines
    _format_units([FormatTask(unit, folder, newlines, config.splitter) for unit in units], config)


def _forget_incomplete_units(folder: Path) -> bool:
    """Tell whether a finished build has lost files, and remove the sign that their units are there."""
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    lost = [file["name"] for file in record["files"] if not (folder / file["name"]).is_file()]
    for name in lost:
        unit = name.removesuffix(".txt")[: len("formatted_00000")]
        (folder / f"{unit}.txt").unlink(missing_ok=True)
    return bool(lost)


def _sample(units: list[Unit], num_bytes: int, seed: int) -> Iterator[str]:
    """Yield documents from the beginnings of randomly chosen units, as evenly as they allow, up to `num_bytes`."""
    share = num_bytes // min(len(units), _SAMPLED_UNITS) if units else 0
    taken = 0
    for index in np.random.default_rng([seed, 3]).permutation(len(units)):
        from_this = 0
        with contextlib.closing(read_unit(units[index])) as documents:
            for document in documents:
                yield document
                from_this += len(document.encode())
                if from_this >= share:
                    break
        taken += from_this
        if taken >= num_bytes:
            return


def _format_units(tasks: list[FormatTask], pool: PoolConfig) -> None:
    missing = [task for task in tasks if not task.first_file.exists()]
    if len(missing) < len(tasks):
        logger.info("%d of %d files are there already", len(tasks) - len(missing), len(tasks))
    with Progress("format", sum(task.num_bytes for task in missing)) as progress:
        run_tasks(format_unit, missing, pool, FormatTask.describe, progress, lambda task: task.num_bytes)
    if not any(task.first_file.stat().st_size for task in tasks):
        raise InputError("the input holds no sentence: every file is empty. Give other text with --input.")


def format_unit(task: FormatTask) -> None:
    """Write the formatted text of one unit."""
    splitter = load_splitter(task.folder, task.splitter)
    documents = (split_document(text, splitter, task.newlines) for text in read_unit(task.unit))
    first, number = "", -1
    for number, text in enumerate(_files(documents)):
        if number == 0:
            first = text
        else:
            atomic_write_text(task.part_file(number), text)
    atomic_write_text(task.first_file, first)


def _files(documents: Iterable[list[str]]) -> Iterator[str]:
    """Join documents to the contents of files of bounded size."""
    content, size = io.StringIO(), 0
    for sentences in documents:
        if not sentences:
            continue
        text = "\n".join(sentences) + "\n"
        content.write("\n" if size else "")
        content.write(text)
        size += len(text.encode())
        if size >= _FILE_BYTES:
            yield content.getvalue()
            content, size = io.StringIO(), 0
    if size:
        yield content.getvalue()


def _record(folder: Path, settings: dict[str, Any], fingerprint: str, content: str) -> dict[str, Any]:
    files = sorted(folder.glob("formatted_*.txt"))
    return {
        "settings": settings,
        "fingerprint": fingerprint,
        "input_sha256": content,
        "files": [{"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files],
    }
