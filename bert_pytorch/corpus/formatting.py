"""Text of many kinds to formatted text: one sentence a line, blank lines between documents, UTF-8."""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from bert_pytorch.corpus.builds import Build, fingerprint_of
from bert_pytorch.corpus.cleaning import DEFAULT_STEPS, CleanStep
from bert_pytorch.corpus.duplicates import find_duplicates
from bert_pytorch.corpus.executors.pool import PoolConfig, check_pool, run_tasks
from bert_pytorch.corpus.format_units import (
    COUNTS,
    WORK_FOLDER,
    FormatTask,
    clean_documents,
    format_unit,
    prepare_work_folder,
    restore_notes,
)
from bert_pytorch.corpus.inputs.encodings import AUTO, encoding_problem
from bert_pytorch.corpus.inputs.stretches import Documents, Quoting, ReadOptions, Source
from bert_pytorch.corpus.inputs.wikipedia import check_dump
from bert_pytorch.corpus.sentences import PARAMETERS_FILE, Newlines, SplitterName, parameters_sha256, prepare_splitter
from bert_pytorch.corpus.sources import Unit, find_sources, hash_files, plan_units
from bert_pytorch.errors import InputError
from bert_pytorch.files import exclusive_lock, sha256_of
from bert_pytorch.progress import Progress

logger = logging.getLogger(__name__)

RECORD = "formatted.json"
_VERSION = 2
_DECISIVE = (
    *("documents", "newlines", "text_field", "encoding", "quoting", "clean", "clean_steps", "deduplicate"),
    *("splitter", "language", "splitter_sample_bytes", "seed"),
)
"""Settings that decide the bytes."""
_SAMPLED_UNITS = 16


class FormatConfig(PoolConfig):
    """Split text into sentences: one a line, a blank line between documents."""

    input: tuple[Path, ...] = ()
    """Files or folders with such files: *.txt, *.jsonl and *.json (one object a line), *.csv, *.tsv, each plain or with
    .gz, .bz2 or .zst behind it; *.parquet; Wikipedia's *.xml.bz2. Plain *.json is not looked for in folders."""
    output: Path | None = None
    """Folder for the formatted text."""
    documents: Documents = "auto"
    """What a document is in *.txt: file, the whole file; blank_line, what stands between blank lines; auto: a file
    among others is one document (unless larger than 4 MiB), a lone or larger one is split at its blank lines."""
    newlines: Newlines = "auto"
    """What the end of a line means inside a paragraph: break, a sentence ends; join, nothing (text wrapped at a fixed
    width); auto decides for each document."""
    text_field: str = "text"
    """Field of JSON lines, or column of tables, that holds the text; a.b is field b of a."""
    encoding: str = AUTO
    """Encoding of all files without a byte order mark, decoded strictly; auto: UTF-8, others are refused by name."""
    quoting: Quoting = "auto"
    """Whether fields of tables may stand in double quotes (double) or quotes mean nothing (none); auto: double in
    *.csv, which is then read by one process a file, none in *.tsv."""
    clean: bool = True
    """Clean documents of what is no text; --no-clean refuses NUL and halves of surrogate pairs and keeps all else."""
    clean_steps: tuple[CleanStep, ...] = DEFAULT_STEPS
    """What cleaning does. characters: NUL becomes a space, half of a surrogate pair U+FFFD; lines: CR, U+0085, U+2028
    and U+2029 become ends of lines; control: other control characters go; invisible: soft hyphen, U+200B, U+2060 and
    U+FEFF go; nfc: composed characters."""
    deduplicate: bool = False
    """Leave out documents that equal an earlier one but for white space."""
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
        "dedup": "--deduplicate",
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
        if problem := encoding_problem(self.encoding):
            yield f"--encoding: {problem}"


def format_text(config: FormatConfig) -> Path:
    """Format text into `config.output` and return that folder; finished work is left as it is.

    Raises:
        InputError: if the input cannot be used, or the folder holds another build.
    """
    assert config.output is not None
    folder = config.output
    sources = find_sources(config.input, folder)
    settings: dict[str, Any] = {name: getattr(config, name) for name in _DECISIVE}
    if config.splitter_parameters is not None:
        settings["splitter_parameters"] = sha256_of(config.splitter_parameters)
    for dump in (source.path for source in sources if source.kind.format == "wikipedia"):
        check_dump(dump)
    content = hash_files([source.path for source in sources], config)
    layout = [[*source.kind, source.alone] for source in sources]
    fingerprint = fingerprint_of(_VERSION, settings, content, layout)
    build = Build(folder, RECORD, fingerprint, settings, ("formatted_*.txt", PARAMETERS_FILE))
    with exclusive_lock(folder, "builds"):
        if config.overwrite:
            build.clear()
            _clear_work(folder)
        if not build.needs_work() and not restore_notes(folder, _read_record(folder)):
            logger.info("%s: finished already, nothing to do", folder)
            _clear_work(folder)  # of a start that was killed right before its end
            return folder
        check_pool(config)
        with build.in_work():
            notes = _format_sources(sources, folder, config)
            build.finish({**_record(notes, settings, fingerprint, content), "splitter": _splitter(config, folder)})
        _clear_work(folder)
    return folder


def _format_sources(sources: list[Source], folder: Path, config: FormatConfig) -> dict[str, dict[str, Any]]:
    """Format all units and return what is noted about each, by its name."""
    prepare_work_folder(folder)
    steps = config.clean_steps if config.clean else ()
    options = ReadOptions(config.documents, config.text_field, config.encoding, config.quoting, "characters" in steps)
    units = plan_units(sources, options)
    prepare_splitter(
        folder,
        config.language,
        lambda: _sample(units, steps, config.splitter_sample_bytes, config.seed),
        config.splitter,
        config.splitter_parameters,
    )
    newlines: Newlines = "break" if config.splitter == "newline" else config.newlines
    duplicates = (
        find_duplicates(units, folder, steps, config) if config.deduplicate else [np.empty(0, np.int64)] * len(units)
    )
    parameters = parameters_sha256(folder, config.splitter)
    tasks = [
        FormatTask(unit, folder, newlines, config.splitter, parameters, steps, left_out)
        for unit, left_out in zip(units, duplicates, strict=True)
    ]
    return _format_units(tasks, config)


def _read_record(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return record


def _clear_work(folder: Path) -> None:
    shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)


def _sample(units: list[Unit], steps: tuple[CleanStep, ...], num_bytes: int, seed: int) -> Iterator[str]:
    """Yield documents from the beginnings of randomly chosen units, as evenly as they allow, up to `num_bytes`."""
    share = num_bytes // min(len(units), _SAMPLED_UNITS) if units else 0
    taken = 0
    for index in np.random.default_rng([seed, 3]).permutation(len(units)):
        from_this = 0
        with contextlib.closing(clean_documents(units[index], steps)) as documents:
            for document in documents:
                part = document[: share - from_this]  # one document may be 100 MB, and learning takes 50 times that
                yield part
                from_this += len(part.encode())
                if from_this >= share:
                    break
        taken += from_this
        if taken >= num_bytes:
            return


def _format_units(tasks: list[FormatTask], pool: PoolConfig) -> dict[str, dict[str, Any]]:
    missing = [task for task in tasks if task.finished() is None]
    if len(missing) < len(tasks):
        logger.info("%d of %d pieces are there already", len(tasks) - len(missing), len(tasks))
    with Progress("format", sum(task.num_bytes for task in missing)) as progress:
        run_tasks(format_unit, missing, pool, FormatTask.describe, progress, lambda task: task.num_bytes)
    notes = {task.unit.name: task.finished() or {} for task in tasks}
    if not any(note["files"] for note in notes.values()):
        raise InputError("the input holds no sentence: every file is empty. Give other text with --input.")
    return notes


def _record(
    notes: dict[str, dict[str, Any]], settings: dict[str, Any], fingerprint: str, content: str
) -> dict[str, Any]:
    counts = {name: sum(note["counts"][name] for note in notes.values()) for name in COUNTS}
    _tell(counts)
    return {
        "settings": settings,
        "fingerprint": fingerprint,
        "input_sha256": content,
        "counts": counts,
        "files": [{"unit": unit, **file} for unit, note in notes.items() for file in note["files"]],
        "units": {unit: note["counts"] for unit, note in notes.items()},
    }


def _splitter(config: FormatConfig, folder: Path) -> dict[str, str]:
    """Describe the splitter: where its parameters came from depends on what is installed."""
    described = {"name": config.splitter, "parameters_sha256": parameters_sha256(folder, config.splitter)}
    if config.splitter == "nltk":
        described["origin"] = json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8"))["origin"]
    return described


def _tell(counts: dict[str, int]) -> None:
    logger.info("%s documents, %s sentences", f"{counts['documents']:,}", f"{counts['sentences']:,}")
    if counts["duplicates"]:
        logger.info("%s exact duplicates left out", f"{counts['duplicates']:,}")
    if counts["nul_characters"] or counts["half_surrogates"]:
        logger.warning(
            "%s NUL characters became spaces, %s halves of surrogate pairs became U+FFFD (--no-clean refuses them)",
            f"{counts['nul_characters']:,}",
            f"{counts['half_surrogates']:,}",
        )
