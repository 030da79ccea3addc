"""Checking sets of shards: every file against the manifest, every row against its layout, all problems named.

Shards are checked side by side, in memory that does not depend on their size; what needs a whole set (its manifest, its
vocabulary, equal sizes) is checked from what they report.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from bert_pytorch.corpus.executors.pool import PoolConfig, check_pool, run_tasks
from bert_pytorch.corpus.inspection.shard_checks import ShardCheck, ShardReport, check_shard, tried
from bert_pytorch.errors import InputError
from bert_pytorch.files import TEMPORARY_PREFIX
from bert_pytorch.progress import Progress
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.entries import ShardEntry
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.layouts import MANIFEST, UNFINISHED, is_held_out
from bert_pytorch.shards.manifest import Manifest, read_manifest
from bert_pytorch.shards.opening import find_shards
from bert_pytorch.shards.vocabularies import vocabularies_beside
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_TEXT, read_vocabulary, vocabulary_sha256


class VerifyConfig(PoolConfig):
    """Check sets of shards: files against the manifest, rows against their layout."""

    input: tuple[Path, ...] = ()
    """Folders of sets, or folders above them."""
    max_problems: int = Field(0, ge=0)
    """Most problems that are listed; 0 lists all."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if not self.input:
            yield "--input is missing: name a folder with shards."


class Verified(NamedTuple):
    """What a check saw."""

    folder: Path
    shards: int
    sequences: int
    tokens: int
    held_out_sequences: int
    masked: int
    """Masked tokens of a static set."""
    complete: bool
    """Whether a manifest says that no shard is missing; foreign sets have none."""


def verify(config: VerifyConfig) -> list[Verified]:
    """Check every set under the given folders.

    Raises:
        InputError: naming all problems found, one line each.
    """
    check_pool(config)
    folders = sorted({folder for path in config.input for folder in _set_folders(path)})
    checks = [_SetCheck(folder) for folder in folders]
    tasks = [task for check in checks for task in check.tasks]
    with Progress("verify", sum(task.num_bytes for task in tasks)) as progress:
        reports = iter(
            run_tasks(check_shard, tasks, config, ShardCheck.describe, progress, lambda task: task.num_bytes)
        )
    results = [check.conclude([next(reports) for _ in check.tasks]) for check in checks]
    problems = list(dict.fromkeys(problem for check in checks for problem in check.problems))
    if problems:
        shown = problems[: config.max_problems or None]
        listing = shown + [f"… and {len(problems) - len(shown)} more"] * (len(shown) < len(problems))
        raise InputError("these shards are not sound; build them again:" + "".join(f"\n  - {line}" for line in listing))
    return results


class _SetCheck:
    """Collects the problems of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []
        self.tasks: list[ShardCheck] = []
        self._manifest: Manifest | None = tried(self.problems, lambda: read_manifest(folder))
        paths = sorted(folder.glob("[!.]*.hdf5"))  # `*` would match files of writers that were killed
        if (folder / UNFINISHED).exists():
            self.problems.append(
                f"{folder}: its build is not finished: it has {UNFINISHED} and {len(paths)} shard(s) so far. Start the "
                "same build again: it goes on where it was"
            )
            return
        left = sorted(path.name for path in folder.glob(f"{TEMPORARY_PREFIX}*"))
        self.problems += [f"{folder / name}: left over from a writer that was killed; remove it" for name in left]
        odd = [path for path in paths if not path.is_file()]
        self.problems += [f"{path}: a folder, a link to nothing or a device, wanted a file; remove it" for path in odd]
        paths = [path for path in paths if path.is_file()]
        vocabulary = self._vocabulary(paths)
        records = {} if self._manifest is None else {record.name: record for record in self._manifest.shards}
        missing = set(records) - {path.name for path in [*paths, *odd]}
        self.problems += [f"{folder / name}: named by the manifest, but missing" for name in records if name in missing]
        if self._manifest is not None:
            self._compare_vocabulary(self._manifest, vocabulary)
            self.problems += [f"{path}: not in the manifest" for path in paths if path.name not in records]
        self.tasks = [ShardCheck(path, records.get(path.name), vocabulary) for path in paths]

    def _vocabulary(self, paths: list[Path]) -> Vocabulary | None:
        """Read the vocabulary that training would use."""
        readable = (header for path in paths if (header := tried([], partial(read_header, path))) is not None)
        entries = [ShardEntry.of(header) for header in itertools.islice(readable, 1)]
        beside = tried(self.problems, lambda: vocabularies_beside(self.folder, entries, True))
        return next(iter((beside or {}).values()), None)

    def _compare_vocabulary(self, manifest: Manifest, used: Vocabulary | None) -> None:
        """Compare each file of the vocabulary with the manifest."""
        for path in (self.folder / TOKENIZER_JSON, self.folder / VOCABULARY_TEXT):
            if not path.is_file():
                self.problems.append(f"{path}: missing; the set was built with a vocabulary beside its shards")
                continue
            found = tried(self.problems, partial(read_vocabulary, path))
            if found is not None and vocabulary_sha256(found) != manifest.vocabulary_sha256:
                self.problems.append(
                    f"{path}: its vocabulary is not the manifest's: {len(found.tokens)} tokens with SHA-256 "
                    f"{vocabulary_sha256(found)[:12]}…, wanted {manifest.vocabulary_size} with "
                    f"{manifest.vocabulary_sha256[:12]}…"
                )
        if used is not None and used.lowercase != manifest.lowercase:
            self.problems.append(f"{self.folder}: lowercase is {used.lowercase}, the manifest says otherwise")

    def conclude(self, reports: list[ShardReport]) -> Verified:
        """Check what the shards hold together."""
        self.problems += [problem for report in reports for problem in report.problems]
        headers = [report.header for report in reports if report.header is not None]
        self._compare_kinds(headers)
        if not (self.folder / MANIFEST).exists() and any("fingerprint" in header.attributes for header in headers):
            self.problems.append(f"{self.folder}: no {MANIFEST}: the set is not whole; start the same build again")
        if self._manifest is not None and len(headers) == len(self._manifest.shards):
            self._compare_sums(reports)
        return Verified(
            folder=self.folder,
            shards=len(headers),
            sequences=sum(header.num_rows for header in headers),
            tokens=sum(_tokens(report.histogram) for report in reports),
            held_out_sequences=sum(header.num_rows for header in headers if is_held_out(header.path.name)),
            masked=sum(report.masked for report in reports),
            complete=self._manifest is not None,
        )

    def _compare_kinds(self, headers: list[Header]) -> None:
        """All shards of a set are alike, and as the manifest says."""
        manifest = self._manifest
        for name in ("layout", "sequence_length", "next_sentence"):
            wanted = getattr(manifest or (headers[0] if headers else None), name, None)
            source = "the manifest" if manifest is not None else "the first shard"
            for header in headers:
                if getattr(header, name) != wanted:
                    self.problems.append(f"{header.path}: {name} is {getattr(header, name)}, {source} says {wanted}")
        for header in headers:
            if manifest is not None and header.attributes.get("fingerprint") != manifest.fingerprint:
                self.problems.append(f"{header.path}: it comes from another build (its fingerprint is not the set's)")

    def _compare_sums(self, reports: list[ShardReport]) -> None:
        """Sums and the histogram of each part; sizes of shards, equal within one row since manifests say how."""
        assert self._manifest is not None
        for part, held_out in (("train", False), ("eval", True)):
            mine = [report for report in reports if is_held_out(report.path.name) == held_out]
            counts = getattr(self._manifest, part)
            histogram = np.zeros(self._manifest.sequence_length + 1, np.int64)
            for report in mine:
                histogram[: len(report.histogram)] += report.histogram[: len(histogram)]
            found: dict[str, Any] = {"sequences": int(histogram.sum()), "tokens": _tokens(histogram)}
            if counts.length_histogram:
                found["length_histogram"] = tuple(histogram.tolist())
            for name, value in found.items():
                if value != getattr(counts, name):
                    difference = "" if name == "length_histogram" else f" ({value} found)"
                    self.problems.append(f"{self.folder / MANIFEST}: {part}.{name} is not the shards'{difference}")
            sizes = [report.header.num_rows for report in mine if report.header is not None]
            if "sequences" in self._manifest.settings and sizes and max(sizes) - min(sizes) > 1:
                self.problems.append(
                    f"{self.folder}: its {part} shards have {min(sizes)} to {max(sizes)} rows, wanted equal within one"
                )


def _set_folders(path: Path) -> set[Path]:
    found = {shard.parent for part in ("train", "eval") for shard in find_shards(path, part)}
    if path.is_dir():
        found |= {file.parent for file in path.rglob(MANIFEST)}
        found |= {file.parent for file in path.rglob(UNFINISHED) if file.parent.name.startswith("sequences_")}
    if not found:
        raise InputError(f"{path}: no shard (*.hdf5) found.")
    return found


def _tokens(histogram: np.ndarray) -> int:
    return int(histogram @ np.arange(len(histogram)))
