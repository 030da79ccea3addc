"""Exact duplicates among all documents of the input: found by 128-bit hashes, the first in the input's order stays.

Two documents are equal if they are after cleaning, with white space taken for single spaces.  First every unit's hashes
are written (a map); then one process compares them all.  That two different documents among 10⁹ have one hash happens
with a probability of 10⁻²¹.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_pytorch.corpus.cleaning import CleanStep
from bert_pytorch.corpus.executors.pool import PoolConfig, run_tasks
from bert_pytorch.corpus.format_units import WORK_FOLDER, clean_documents
from bert_pytorch.corpus.sentences import single_spaced
from bert_pytorch.corpus.sources import Unit
from bert_pytorch.files import atomic_path
from bert_pytorch.progress import Progress

_HASH_BYTES = 16
_COMPARED = 4 << 20
"""Hashes sorted at a time, about; sorting takes about 40 bytes for each."""


class HashTask(NamedTuple):
    """A unit and where its hashes go."""

    unit: Unit
    folder: Path
    clean_steps: tuple[CleanStep, ...]

    @property
    def file(self) -> Path:
        """The hashes, 16 bytes a document."""
        return self.folder / WORK_FOLDER / "hashes" / self.unit.name

    @property
    def num_bytes(self) -> int:
        """Bytes of input, about."""
        return self.unit.num_bytes

    def describe(self) -> str:
        """Name the input."""
        return self.unit.describe()


def find_duplicates(
    units: Sequence[Unit], folder: Path, steps: tuple[CleanStep, ...], pool: PoolConfig
) -> list[np.ndarray]:
    """Find the documents that an earlier one equals; hashes that are in `folder` already are not made again.

    Memory: 17 bytes a document, and a constant.

    Returns:
        For each unit int64 (n,): the numbers of such documents, blank ones not counted, ascending.
    """
    tasks = [HashTask(unit, folder, steps) for unit in units]
    missing = [task for task in tasks if not task.file.exists()]
    with Progress("hash documents", sum(task.num_bytes for task in missing)) as progress:
        run_tasks(hash_unit, missing, pool, HashTask.describe, progress, lambda task: task.num_bytes)
    counts = np.array([task.file.stat().st_size // _HASH_BYTES for task in tasks], np.int64)
    hashes = np.empty((counts.sum(), 2), np.uint64)
    for task, end, count in zip(tasks, np.cumsum(counts), counts, strict=True):
        hashes[end - count : end] = np.fromfile(task.file, "<u8").reshape(-1, 2)
    repeats = repeated(hashes)
    return [np.flatnonzero(part) for part in np.split(repeats, np.cumsum(counts))[:-1]]


def hash_unit(task: HashTask) -> None:
    """Write the hashes of a unit's documents."""
    task.file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(task.file) as temporary, temporary.open("wb") as file:
        file.writelines(_hashes(task))


def _hashes(task: HashTask) -> Iterator[bytes]:
    for text in clean_documents(task.unit, task.clean_steps):
        digest = hashlib.blake2b(digest_size=_HASH_BYTES)
        for number, piece in enumerate(single_spaced(text)):
            digest.update(f" {piece}".encode() if number else piece.encode())
        yield digest.digest()


def repeated(hashes: np.ndarray) -> np.ndarray:
    """Tell which rows equal an earlier one.

    Args:
        hashes: uint64 (D, 2), evenly distributed.

    Returns:
        bool (D,).
    """
    found = np.zeros(len(hashes), bool)
    bits = max(0, (len(hashes) // _COMPARED).bit_length())
    for part in range(1 << bits):
        rows = np.flatnonzero(hashes[:, 0] >> np.uint64(64 - bits) == part) if bits else np.arange(len(hashes))
        order = np.lexsort((hashes[rows, 1], hashes[rows, 0]))  # stable: equal ones stay in their order
        ordered = hashes[rows[order]]
        found[rows[order[1:]]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return found
