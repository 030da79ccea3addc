"""The shards of a set that are open: each made ready when it is first touched, the least recently used let go."""

import collections
import contextlib
import logging
import resource
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from bert_pytorch.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, cache_folder, limit_bytes
from bert_pytorch.shards.entries import ShardEntry, ShardFiles
from bert_pytorch.shards.expected_headers import expected_header
from bert_pytorch.shards.flat_files import spare_flat_files
from bert_pytorch.shards.headers import Header, read_header
from bert_pytorch.shards.mapped import OpenShard

logger = logging.getLogger(__name__)

_MOST_MAPPED = 16384
"""Linux allows a process 65,530 mappings."""
_SPARED_DESCRIPTORS = 256
_TURNS = 64
"""Locks that threads take in turn to make a shard ready."""


class OpenShards:
    """Opens shards by their number; threads share it.

    Args:
        entries: the shards.
        source: where they are, for messages.
        headers: those that are read already, by number; the others are read when a shard is first touched.
        files: fetches those that lie elsewhere; None where all are here.
    """

    def __init__(
        self,
        entries: Sequence[ShardEntry],
        source: str | Path,
        headers: Mapping[int, Header],
        files: ShardFiles | None,
    ) -> None:
        self._entries = entries
        self._source = source
        self._headers = dict(headers)
        self._expected: dict[int, Header] = {}
        self._files = files
        self._open: collections.OrderedDict[int, OpenShard] = collections.OrderedDict()
        self._most_open = 0
        self._lock = threading.Lock()
        self._turns = [threading.Lock() for _ in range(min(_TURNS, len(entries)))]
        self._announced = False

    def __getitem__(self, number: int) -> OpenShard:
        """Return a shard, mapped; a compressed one is decompressed and a remote one fetched first.

        Raises:
            DamagedShardError: if it is not what its manifest says, cannot be decompressed, or was cut off meanwhile.
        """
        with self._lock:
            shard = self._open.get(number)
            if shard is not None:
                self._open.move_to_end(number)
        if shard is not None:
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

    def header(self, number: int) -> Header:
        """Return a shard's header with all attributes of the file, read once.

        Raises:
            DamagedShardError: if it is not what the manifest says.
        """
        header = self._headers.get(number)
        if header is None:
            entry = self._entries[number]
            header = read_header(entry.path)
            entry.refuse_other(header)
            with self._lock:
                self._headers[number] = header
        return header

    def _header_to_map(self, number: int) -> Header:
        header = self._headers.get(number) or self._expected.get(number) or expected_header(self._entries[number])
        if header is None:
            return self.header(number)
        self._expected[number] = header
        return header

    def keep_only(self, numbers: set[int]) -> None:
        """Let go of all others: a mapping keeps the disk space of a file that was removed."""
        with self._lock:
            for number in [number for number in self._open if number not in numbers]:
                del self._open[number]

    def close(self) -> None:
        """Let go of all; they are opened again when they are touched."""
        self.keep_only(set())

    def _opened(self, number: int) -> OpenShard:
        with self._turns[number % len(self._turns)]:  # decompression takes seconds: threads at other shards go on
            with self._lock:
                shard = self._open.get(number)
            if shard is not None:
                return shard
            header = self._header_to_map(number)
            if header.offsets is None:
                self._announce_cache()
            shard = OpenShard(header)
            with self._lock:
                self._most_open = self._most_open or most_mapped(len(self._entries))
                while len(self._open) >= self._most_open:
                    self._open.popitem(last=False)
                self._open[number] = shard
            return shard

    def _announce_cache(self) -> None:
        with self._lock:
            if self._announced:
                return
            self._announced = True
            headers = list(self._headers.values())
        if self._files is None:  # of what is fetched, more may be touched in time than there is room for
            spare_flat_files(entry.path for entry in self._entries)
        total = sum(header.flat_bytes for header in headers) * len(self._entries) // len(headers)
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
