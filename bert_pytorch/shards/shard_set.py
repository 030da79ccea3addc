"""All shards under one path as one long table of rows."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.records import SequenceRows, Vocabulary
from bert_pytorch.shards.entries import ShardEntry, ShardFiles
from bert_pytorch.shards.headers import Header
from bert_pytorch.shards.layouts import STATIC_LAYOUTS
from bert_pytorch.shards.mapped import OpenShard
from bert_pytorch.shards.open_shards import OpenShards
from bert_pytorch.shards.row_checks import damaged_row, unsound_row
from bert_pytorch.shards.row_columns import rows_of, scatter_columns

T = TypeVar("T")


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
        self._files = files
        self._ends = np.cumsum([entry.num_rows for entry in entries], dtype=np.int64)
        self._open = OpenShards(self._entries, source, headers or {}, files)
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
        return [self._open.header(number) for number in range(len(self._entries))]

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
        self._open.keep_only(set(shards))
        self._files.expect([self._entries[number].path for number in shards])

    def close(self) -> None:
        """Forget all mappings and end what fetches ahead; the next read opens them again."""
        self._open.close()
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
            parts.append(read(self._open[number], inside[start:stop] - first))
        return parts, order

    def _damaged(self, index: int, found: str) -> DamagedShardError:
        number = int(self.owners(np.array([index]))[0])
        row = index - (int(self._ends[number]) - self._entries[number].num_rows)
        return damaged_row(self._entries[number].path, row, found)
