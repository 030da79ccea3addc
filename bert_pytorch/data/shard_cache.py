"""Shards that lie elsewhere, copied when they are needed or a little before: whole, verified, shared by ranks."""

import itertools
import logging
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.files import move_into_place, sha256_of
from bert_pytorch.remote.errors import TransferError
from bert_pytorch.remote.fetch import FetchOptions, fetch
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.shards.cache import INCOMING, mark_used
from bert_pytorch.shards.locks import InUse, alone
from bert_pytorch.shards.room import NoRoom, Promise, reserved

logger = logging.getLogger(__name__)

_RETRIES = 10
"""With pauses of up to a minute, an outage of about ten minutes ends no run."""


class RemoteShard(NamedTuple):
    """One shard: where it lies, and how its copy is recognised as whole."""

    url: str
    size: int
    """Bytes."""
    sha256: str | None
    """Of its content; None where no manifest tells it."""


class ShardCache:
    """Local copies of a set's shards.

    Threads fetch ahead what `expect` was told; `locate` waits for one shard, which goes before all that is fetched
    ahead.  The set is promised the room of two windows: a rank may be a window ahead of another, and what both read
    now must be here.  So the first half of what is expected is in use, and what was located of the second; the rest of
    that is fetched where there is room.

    Args:
        folder: of the copies, of this set alone.
        shards: by name of the copy.
        window: shards that are read at a time; 0 for all.
        threads: that fetch ahead; 0 fetches each shard when it is needed.
        options: how patiently.
    """

    def __init__(
        self,
        folder: Path,
        shards: dict[str, RemoteShard],
        window: int = 0,
        threads: int = 4,
        options: FetchOptions | None = None,
    ) -> None:
        self.folder = folder
        self.largest = max(shard.size for shard in shards.values())
        self.room = Promise(folder, bytes_at_once([shard.size for shard in shards.values()], window))
        self._shards = shards
        self._threads = threads
        self._options = options or FetchOptions(retries=_RETRIES)
        self._in_use = InUse(folder)
        self._expected: frozenset[str] = frozenset()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def locate(self, path: Path) -> Path:
        """Return the copy of a shard, given the path it has or will have; fetches it, or waits until it is fetched.

        Raises:
            DamagedShardError: if what arrives is not what the manifest says.
            TransferError: if it cannot be had.
        """
        name = path.name
        with self._lock:
            if name in self._expected:
                self._in_use.add(name)
            else:  # an update that spans more than two windows: what it has read may go
                self._in_use.keep_only(frozenset())
            pending = self._pending.pop(name, None)
        if pending is not None and not pending.cancel():  # what still waits for a thread is fetched at once
            try:
                pending.result()
            except (TransferError, NoRoom) as error:
                logger.info("%s Tried again, now that it is needed.", error)
        self._bring(name, self._closing, needed_now=True)
        return self.folder / name

    def expect(self, paths: Sequence[Path]) -> None:
        """Fetch shards ahead in this order, as many as there is room for; others may be removed from now on."""
        names = [path.name for path in paths]
        ends = dict(zip(names, itertools.accumulate(self._shards[name].size for name in names), strict=True))
        expected = [name for name in names if ends[name] <= self.room.size]
        with self._lock:
            self._expected = frozenset(expected)
            self._in_use.keep_only(self._expected)
            for name in expected:
                if ends[name] <= self.room.size // 2:
                    self._in_use.add(name)
            for name in [name for name in self._pending if name not in self._expected and self._pending[name].cancel()]:
                del self._pending[name]
            for name in expected:
                if self._is_here(name):
                    mark_used(self.folder / name)
                elif self._threads and name not in self._pending:
                    self._pool = self._pool or ThreadPoolExecutor(self._threads, thread_name_prefix="shards")
                    self._pending[name] = self._pool.submit(self._bring, name, self._closing, needed_now=False)

    def close(self) -> None:
        """End the threads; what has arrived of a shard stays and is continued another time."""
        with self._lock:
            pool, self._pool = self._pool, None
            closing, self._closing = self._closing, threading.Event()
            self._pending.clear()
            self._expected = frozenset()
            self._in_use.close()
        self.room.close()
        closing.set()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _bring(self, name: str, closing: threading.Event, needed_now: bool) -> None:
        """Fetch a shard that is not here, unless another rank does meanwhile."""
        target, size = self.folder / name, self._shards[name].size
        if not self._is_here(name):
            with alone(target):
                if not self._is_here(name):
                    with reserved(target, size, "wait" if needed_now else "give_up", closing.is_set):
                        self._fetch(name, target, closing)
        mark_used(target)

    def _is_here(self, name: str) -> bool:
        try:
            return (self.folder / name).stat().st_size == self._shards[name].size
        except FileNotFoundError:
            return False

    def _fetch(self, name: str, target: Path, closing: threading.Event) -> None:
        shard, incoming = self._shards[name], self.folder / INCOMING / name
        options = self._options._replace(cancelled=closing.is_set, sleep=closing.wait)
        for last_try in (False, True):
            copy = fetch(RemoteFile((shard.url,), name, shard.size), incoming, options)
            found = sha256_of(copy) if shard.sha256 is not None else None
            if found == shard.sha256:
                break
            copy.unlink()
            logger.warning("%s: its SHA-256 is %s, wanted %s", shard.url, found, shard.sha256)
            if last_try:
                raise DamagedShardError(
                    f"{shard.url}: its SHA-256 is {found}, its manifest says {shard.sha256}, twice fetched. Upload it "
                    "again, or train without it: --on_bad_shard skip",
                    target,
                )
        move_into_place(copy, target)
        shutil.rmtree(incoming, ignore_errors=True)


def bytes_at_once(sizes: Iterable[int], window: int) -> int:
    """Return the most bytes that must be here at a time: all shards, or two windows of the largest of them."""
    ordered = sorted(sizes, reverse=True)
    return sum(ordered if not window else ordered[: 2 * window])
