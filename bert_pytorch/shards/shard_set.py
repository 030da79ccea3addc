"""All shards under one path as one long table of rows."""

import collections
import contextlib
import itertools
import logging
import resource
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, cache_folder, limit_bytes
from bert_pytorch.shards.flat_files import spare_flat_files
from bert_pytorch.shards.layouts import STATIC_LAYOUTS, Layout
from bert_pytorch.shards.row_checks import damaged_row, unsound_row
from bert_pytorch.shards.shard_file import Header, OpenShard, read_header, rows_of, scatter_columns

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_MAPPED = 16384
"""Linux allows a process 65,530 mappings."""
_SPARED_DESCRIPTORS = 256


class ShardEntry(NamedTuple):
    """What is known of a shard before it is opened."""

    path: Path
    layout: Layout
    num_rows: int
    sequence_length: int
    next_sentence: bool
    attributes: dict[str, Any]
    """Of the file, or what a manifest says for all: `vocabulary_sha256`, `lowercase`."""

    @classmethod
    def of(cls, header: Header) -> "ShardEntry":
        """Take what a header says."""
        return cls(
            header.path,
            header.layout,
            header.num_rows,
            header.sequence_length,
            header.next_sentence,
            {name: header.attributes[name] for name in ("vocabulary_sha256", "lowercase") if name in header.attributes},
        )


class ShardFiles(Protocol):
    """Brings the files of shards that lie elsewhere."""

    def locate(self, path: Path) -> Path:
        """Wait until the file of a shard is at `path`, and return that."""

    def expect(self, paths: Sequence[Path]) -> None:
        """Begin to fetch files, in this order."""

    def close(self) -> None:
        """End what fetches ahead."""


class ShardSet:
    """Shards of one sequence length and layout, in the order of their names; rows are numbered through.

    Args:
        entries: the shards, at least one.
        vocabulary: their tokens and casing; None for foreign shards without one.
        source: where they are, for messages.
        headers: those that are read already, by number; the others are read when a shard is first touched.
        files: fetches those that lie elsewhere; None where all are here.
    """

    def __init__(
        self,
        entries: Sequence[ShardEntry],
        vocabulary: Vocabulary | None,
        source: str | Path,
        headers: dict[int, Header] | None = None,
        files: ShardFiles | None = None,
    ) -> None:
        self._entries = list(entries)
        self._headers = dict(headers or {})
        self._files = files
        self._ends = np.cumsum([entry.num_rows for entry in entries], dtype=np.int64)
        self._open: collections.OrderedDict[int, OpenShard] = collections.OrderedDict()
        self._most_open = 0
        self._lock = threading.Lock()
        self._announced = False
        self._source = source
        self._excluded: frozenset[int] = frozenset()
        self._structure = None if vocabulary is None else (vocabulary.cls_id, vocabulary.sep_id, len(vocabulary.tokens))
        self.vocabulary = vocabulary

    @property
    def num_sequences(self) -> int:
        """Rows of all shards."""
        return int(self._ends[-1])

    @property
    def sequence_length(self) -> int:
        """Length L of every row, padding included."""
        return self._entries[0].sequence_length

    @property
    def has_next_sentence(self) -> bool:
        """Whether rows are sentence pairs with a next-sentence label."""
        return self._entries[0].next_sentence

    @property
    def static(self) -> bool:
        """Whether masks were drawn when the shards were written."""
        return self._entries[0].layout in STATIC_LAYOUTS

    @property
    def headers(self) -> list[Header]:
        """The shards' headers, in order; opens every file that was not touched yet."""
        return [self._header(number) for number in range(len(self._entries))]

    @property
    def paths(self) -> list[Path]:
        """The shards' files, in order; of a remote set where they lie once they are here."""
        return [entry.path for entry in self._entries]

    @property
    def shard_sizes(self) -> np.ndarray:
        """Rows of each shard, int64 (num_shards,)."""
        return np.diff(self._ends, prepend=0)

    @property
    def excluded(self) -> frozenset[int]:
        """Numbers of shards that are left out: damaged ones."""
        return self._excluded

    def exclude(self, shards: Iterable[int]) -> None:
        """Leave more shards out; their rows keep their numbers, and whoever draws rows passes over them."""
        self._excluded |= frozenset(shards)

    def owners(self, indices: np.ndarray) -> np.ndarray:
        """Return the shard of each row, int64 (n,)."""
        return np.searchsorted(self._ends, indices, side="right")

    def describe(self) -> str:
        """Say in one line what this set is."""
        words = "no vocabulary beside it"
        if self.vocabulary is not None:
            words = f"vocabulary of {self.vocabulary.describe()}"
        return (
            f"{self._source}: {self.num_sequences:,} sequences of up to {self.sequence_length} tokens "
            f"({'sentence pairs' if self.has_next_sentence else 'single segments'}, "
            f"{'static' if self.static else 'dynamic'} masking, {words}) in {len(self._entries)} shard(s)"
        )

    def rows(self, indices: np.ndarray) -> SequenceRows:
        """Gather rows in the order asked for.

        Args:
            indices: int64 (n,), each in [0, num_sequences), in any order, repeats allowed.

        Raises:
            DamagedShardError: naming file and row, where one cannot be read or is not a sequence of the vocabulary.
            IndexError: if an index is not in the set.
        """
        parts, order = self._gathered(indices, lambda shard, inside: shard.columns(inside))
        first = self._entries[0]
        rows = rows_of(first.layout, first.next_sentence, scatter_columns(parts, order))
        problem = unsound_row(rows, self._structure)
        if problem is not None:
            row, found = problem
            raise self._damaged(int(np.asarray(indices, np.int64)[row]), found)
        return rows

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the tokens of rows before the padding, int32 (n,); reads nothing else of them.

        Raises:
            DamagedShardError: naming file and row, where a length is none of a row.
        """
        parts, order = self._gathered(indices, lambda shard, inside: shard.lengths(inside))
        lengths = np.empty(len(order), np.int32)
        lengths[order] = np.concatenate(parts)
        wrong = np.flatnonzero((lengths < 1) | (lengths > self.sequence_length))
        if len(wrong):
            found = f"found {lengths[wrong[0]]} tokens in a row of {self.sequence_length}"
            raise self._damaged(int(np.asarray(indices)[wrong[0]]), found)
        return lengths

    def expect(self, shards: Sequence[int]) -> None:
        """Say which shards are needed next, in this order: elsewhere ones are fetched ahead, others let go."""
        if self._files is None:
            return
        needed = set(shards)
        with self._lock:  # a mapping keeps the disk space of a file that was removed
            for number in [number for number in self._open if number not in needed]:
                del self._open[number]
        self._files.expect([self._entries[number].path for number in shards])

    def close(self) -> None:
        """Forget all mappings and end what fetches ahead; the next read opens them again."""
        with self._lock:
            self._open.clear()
        if self._files is not None:
            self._files.close()

    def _gathered(self, indices: np.ndarray, read: Callable[[OpenShard, np.ndarray], T]) -> tuple[list[T], np.ndarray]:
        """Read from each shard in turn: what was read, and the places of the rows so ordered, int64 (n,)."""
        indices = np.asarray(indices, np.int64)
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.num_sequences):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of a set of {self.num_sequences}")
        owners = self.owners(indices)
        order = np.argsort(owners, kind="stable")
        owners, inside = owners[order], indices[order]
        bounds = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
        parts = []
        for start, stop in itertools.pairwise(bounds):
            number = int(owners[start]) if stop else 0
            first = int(self._ends[number]) - self._entries[number].num_rows
            parts.append(read(self._shard(number), inside[start:stop] - first))
        return parts, order

    def _shard(self, number: int) -> OpenShard:
        with self._lock:  # the loader's threads read rows side by side
            shard = self._open.get(number)
            if shard is not None:
                self._open.move_to_end(number)
                shard.refuse_shrunk()
                return shard
        if self._files is None:
            return self._opened(number)
        self._files.locate(self._entries[number].path)  # may take long: other threads go on meanwhile
        try:
            return self._opened(number)
        except FileNotFoundError:  # another process made room in the cache before the file was mapped
            self._files.locate(self._entries[number].path)
            return self._opened(number)

    def _opened(self, number: int) -> OpenShard:
        with self._lock:
            if number in self._open:
                return self._open[number]
            header = self._header(number)
            if header.offsets is None:
                self._announce_cache()
            self._most_open = self._most_open or most_mapped(len(self._entries))
            while len(self._open) >= self._most_open:
                self._open.popitem(last=False)
            self._open[number] = OpenShard(header)
            return self._open[number]

    def _header(self, number: int) -> Header:
        """Return a shard's header, read once; refuse one that is not what the manifest says."""
        if number not in self._headers:
            entry = self._entries[number]
            header = read_header(entry.path)
            found, wanted = ShardEntry.of(header)._replace(path=entry.path), entry
            for name in ("num_rows", "layout", "sequence_length", "next_sentence", "attributes"):
                if getattr(found, name) != getattr(wanted, name):
                    raise DamagedShardError(
                        f"{header.path}: its {name.replace('_', ' ')} is {getattr(found, name)}, its manifest says "
                        f"{getattr(wanted, name)}. Build the set again.",
                        entry.path,
                    )
            self._headers[number] = header
        return self._headers[number]

    def _damaged(self, index: int, found: str) -> DamagedShardError:
        number = int(self.owners(np.array([index]))[0])
        row = index - (int(self._ends[number]) - self._entries[number].num_rows)
        return damaged_row(self._entries[number].path, row, found)

    def _announce_cache(self) -> None:
        if self._announced:
            return
        self._announced = True
        compressed = [header for header in self._headers.values() if header.offsets is None]
        spare_flat_files(header.path for header in compressed)
        total = sum(header.flat_bytes for header in compressed) * len(self._entries) // len(self._headers)
        logger.info(
            "%s: %d compressed shard(s) take %.2f GiB decompressed in %s, made once ($%s names another folder)",
            *(self._source, len(self._entries), total / 2**30, cache_folder(), FOLDER_VARIABLE),
        )
        if total > limit_bytes():
            logger.warning("that is more than $%s: %.2f GiB", LIMIT_VARIABLE, limit_bytes() / 2**30)


def most_mapped(wanted: int) -> int:
    """Return how many shards to keep mapped, each with a file descriptor; raises this process's limit where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _SPARED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    room = wanted if soft == resource.RLIM_INFINITY else max(soft - _SPARED_DESCRIPTORS, soft // 2)
    return max(1, min(wanted, room, _MOST_MAPPED))
