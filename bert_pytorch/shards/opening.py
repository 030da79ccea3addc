"""Opening all shards under a path: found, told by their manifest where they have one, and refused if they differ."""

import collections
import itertools
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bert_pytorch.errors import DamagedShardError, InputError
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.entries import ShardEntry, ShardFiles
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.layouts import EVAL_PREFIX, UNFINISHED, is_held_out
from bert_pytorch.shards.manifest import Manifest, ShardRecord, read_manifest
from bert_pytorch.shards.shard_set import ShardSet
from bert_pytorch.shards.vocabularies import refuse_other_vocabulary, vocabularies_beside

logger = logging.getLogger(__name__)

Split = Literal["train", "eval"]
OnBadShard = Literal["stop", "skip"]
_SHOWN = 20
_NUMBER = re.compile("[0-9]+")


class _Found(NamedTuple):
    """One shard, before the set is made of them."""

    entry: ShardEntry
    header: Header | None
    """Where it had to be read."""
    damage: str | None
    """Why it is left out; None where it is sound as far as is known."""


def find_shards(path: Path, split: Split = "train") -> list[Path]:
    """List the shards of one part under a file or folder, sorted; an empty list where there are none.

    Raises:
        InputError: if `path` does not exist.
    """
    if path.is_file():
        return [path] if split == "eval" or not is_held_out(path.name) else []
    if not path.is_dir():
        raise InputError(
            f"{path}: there is no such file or folder. Check the spelling of the path, or make "
            "shards: python -m bert_pytorch.corpus encode --input TEXT --output DIR"
        )
    files = (file for file in path.rglob("*.hdf5") if file.is_file() and not file.name.startswith("."))
    chosen = [file for file in files if is_held_out(file.name) == (split == "eval")]
    return sorted(chosen, key=natural_order)


def open_shards(
    path: Path,
    split: Split = "train",
    vocabulary: Vocabulary | None = None,
    *,
    otherwise_lowercase: bool = True,
    on_bad_shard: OnBadShard = "stop",
    files: ShardFiles | None = None,
) -> ShardSet:
    """Open all shards of one part under a path.

    Sets with a manifest are taken by its word, files by their sizes; the first file is opened, the others when rows are
    asked for.  Of sets without one every file is opened.

    Args:
        path: a file, or a folder searched recursively for `*.hdf5`.
        split: `eval` takes the held-out shards (`eval_*`, NVIDIA's `*_test_*`), `train` all others.
        vocabulary: used instead of the one beside the shards.
        otherwise_lowercase: casing of a vocabulary beside the shards where no file says it: foreign ones are often a
            `vocab.txt` alone.
        on_bad_shard: `skip` leaves damaged files out and warns.  Where a manifest tells their rows, these keep their
            numbers.
        files: brings those back that are removed meanwhile, where they are copies.

    Raises:
        InputError: if there are none, some are damaged, they do not belong together, or the vocabulary is not theirs.
    """
    paths = find_shards(path, split)
    if not paths:
        raise InputError(_nothing_found(path, split))
    found, lost = _look_at_all(paths, path, split)
    damage = [one.damage for one in found if one.damage is not None] + lost
    if damage and (on_bad_shard == "stop" or len(damage) == len(found) + len(lost)):
        raise _all_damaged(path, damage)
    for reason in damage:
        logger.warning("left out: %s", reason)
    entries = [one.entry for one in found]
    refuse_mixture(path, entries)
    headers = {number: one.header for number, one in enumerate(found) if one.header is not None}
    shards = ShardSet(entries, _vocabulary(path, entries, vocabulary, otherwise_lowercase), path, headers, files)
    shards.exclude(number for number, one in enumerate(found) if one.damage is not None)
    return shards


def entries_of(manifest: Manifest, folder: Path, records: Sequence[ShardRecord]) -> list[ShardEntry]:
    """Return what a manifest says of some of its shards."""
    said = {"vocabulary_sha256": manifest.vocabulary_sha256, "lowercase": manifest.lowercase}
    length, pairs = manifest.sequence_length, manifest.next_sentence
    return [ShardEntry(folder / one.name, manifest.layout, one.rows, length, pairs, said) for one in records]


def refuse_mixture(path: str | Path, entries: Sequence[ShardEntry]) -> None:
    """Raise `InputError` listing the folders where shards differ in length, layout or task."""
    kinds: dict[tuple[str, str], set[Path]] = collections.defaultdict(set)
    for length, layout, pairs, folder in {
        (entry.sequence_length, entry.layout, entry.next_sentence, entry.path.parent) for entry in entries
    }:
        kinds["sequence length", str(length)].add(folder)
        kinds["layout", layout].add(folder)
        kinds["task", "sentence pairs" if pairs else "single segments"].add(folder)
    for what in ("sequence length", "layout", "task"):
        found = {value: folders for (name, value), folders in kinds.items() if name == what}
        if len(found) > 1:
            listing = "".join(
                f"\n  - {value}: {folder}" for value, folders in sorted(found.items()) for folder in sorted(folders)
            )
            raise InputError(f"{path}: shards of more than one {what}; name one of the folders:{listing}")


def natural_order(path: Path) -> tuple[str, tuple[int, ...], str]:
    """Order `train_2` before `train_10`, folder by folder."""
    folder, _, name = str(path).rpartition("/")
    return folder, tuple(int(number) for number in _NUMBER.findall(name)), name


def _look_at_all(paths: list[Path], path: Path, split: Split) -> tuple[list[_Found], list[str]]:
    """Return the shards in order, and why others, whose rows nobody knows, cannot be among them."""
    found, lost = [], []
    for folder, files in itertools.groupby(paths, key=lambda file: file.parent):  # sorted: each folder comes once
        together = list(files)
        manifest = _manifest_of(folder, together, path, split)
        told = {}
        if manifest is not None:
            entries = entries_of(manifest, folder, manifest.shards)
            told = {record.name: (entry, record.bytes) for entry, record in zip(entries, manifest.shards, strict=True)}
        header = None
        for file in together:
            entry, size = told.get(file.name, (None, 0))
            try:
                if size:
                    _refuse_other_size(file, size)
                if entry is not None and size and header is not None:
                    found.append(_Found(entry, None, None))
                    continue
                header = read_header(file)
                if entry is not None:
                    entry.refuse_other(header)
                found.append(_Found(entry or ShardEntry.of(header), header, None))
            except DamagedShardError as error:
                if entry is not None:
                    found.append(_Found(entry, None, str(error)))
                else:
                    lost.append(str(error))
    return found, lost


def _refuse_other_size(file: Path, wanted: int) -> None:
    size = file.stat().st_size
    if size != wanted:
        raise DamagedShardError(
            f"{file}: found {size:,} bytes, its manifest says {wanted:,}: truncated or exchanged. "
            f"`python -m bert_pytorch.corpus verify --input {file.parent}` names all that is wrong.",
            file,
        )


def _manifest_of(folder: Path, files: list[Path], path: Path, split: Split) -> Manifest | None:
    if (folder / UNFINISHED).exists():
        raise InputError(
            f"{folder}: this set is not finished (it has {UNFINISHED}). Start its build again: it goes on where it was."
        )
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    present = {file.name for file in files}
    names = [record.name for record in manifest.shards if is_held_out(record.name) == (split == "eval")]
    missing = [name for name in names if name not in present]
    if missing and path.is_dir():
        raise InputError(
            f"{folder}: {len(missing)} shard(s) of its manifest are missing: {', '.join(missing[:5])}. "
            "Start its build again: it makes what is missing."
        )
    return manifest


def _vocabulary(
    path: Path, entries: list[ShardEntry], given: Vocabulary | None, otherwise_lowercase: bool
) -> Vocabulary | None:
    if given is not None:
        refuse_other_vocabulary(entries, given, "the one given")
        return given
    beside = vocabularies_beside(path, entries, otherwise_lowercase)
    if len(set(beside.values())) > 1:
        raise InputError(f"{path}: shards of more than one vocabulary: {', '.join(map(str, beside))}. Name one folder.")
    for place, found in beside.items():
        refuse_other_vocabulary(entries, found, str(place))
    return next(iter(beside.values()), None)


def _all_damaged(path: Path, damage: list[str]) -> InputError:
    if len(damage) == 1:
        return InputError(damage[0])
    listing = "".join(f"\n  - {reason}" for reason in damage[:_SHOWN])
    more = f"\n  and {len(damage) - _SHOWN} more" if len(damage) > _SHOWN else ""
    return InputError(f"{path}: {len(damage)} damaged shards:{listing}{more}")


def _nothing_found(path: Path, split: Split) -> str:
    if split == "eval":
        return f"{path}: no held-out shard ({EVAL_PREFIX}*.hdf5 or *_test_*.hdf5) found. Name a set that has some."
    if find_shards(path, "eval"):
        return (
            f"{path}: only held-out shards ({EVAL_PREFIX}*, *_test_*) found; those are never trained on. Name others."
        )
    return f"{path}: no shard (*.hdf5) found. Make some: python -m bert_pytorch.corpus encode --input TEXT --output DIR"
