"""Shards that lie elsewhere, copied when they are needed or a little before: whole, verified, shared by ranks."""

import logging
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.files import move_into_place, sha256_of
from bert_pytorch.remote.fetch import FetchOptions, fetch
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.shards.cache import alone, cache_folder, keep, limit_bytes, make_room, release

logger = logging.getLogger(__name__)

_INCOMING = ".incoming"


class RemoteShard(NamedTuple):
    """One shard: where it lies, and how its copy is recognised as whole."""

    url: str
    size: int
    """Bytes."""
    sha256: str | None
    """Of its content; None where no manifest tells it."""


class ShardCache:
    """Local copies of a set's shards.

    Threads fetch ahead what `expect` was told; `locate` waits for one shard.  The folder stays under its limit: what
    was used least recently goes first, nothing that is expected.

    Args:
        folder: of the copies, of this set alone.
        shards: by name of the copy.
        threads: that fetch ahead; 0 fetches each shard when it is needed.
        options: how patiently.
    """

    def __init__(
        self, folder: Path, shards: dict[str, RemoteShard], threads: int, options: FetchOptions | None = None
    ) -> None:
        self._folder = folder
        self._shards = shards
        self._options = options or FetchOptions()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="shards") if threads else None
        self._pending: dict[str, Future[Path]] = {}
        self._lock = threading.Lock()
        self._kept: list[Path] = []

    def path_of(self, name: str) -> Path:
        """Return where the copy of a shard lies once it is here."""
        return self._folder / name

    def locate(self, path: Path) -> Path:
        """Return the copy of a shard, given the path it has or will have; fetches it, or waits until it is fetched.

        Raises:
            DamagedShardError: if what arrives is not what the manifest says.
            TransferError: if it cannot be had.
        """
        name = path.name
        with self._lock:
            pending = self._pending.get(name)
        if pending is not None:
            try:
                return pending.result()
            finally:
                with self._lock:
                    self._pending.pop(name, None)
        return self._fetched(name)

    def expect(self, paths: Sequence[Path]) -> None:
        """Fetch shards ahead in this order, as many as the limit has room for; others may be removed from now on."""
        release(self._kept)
        self._kept = []
        room = limit_bytes()
        for path in paths:
            room -= self._shards[path.name].size
            if room < 0:
                break
            self._kept.append(path)
        keep(self._kept)
        if self._pool is None:
            return
        with self._lock:
            wanted = {path.name for path in self._kept}
            for name in [name for name in self._pending if name not in wanted and self._pending[name].cancel()]:
                del self._pending[name]
            for path in self._kept:
                if path.name not in self._pending and not self._is_here(path.name):
                    self._pending[path.name] = self._pool.submit(self._fetched, path.name)

    def close(self) -> None:
        """End the threads; what has arrived of a shard stays and is continued another time."""
        release(self._kept)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _fetched(self, name: str) -> Path:
        target = self._folder / name
        if not self._is_here(name):
            with alone(target):
                if not self._is_here(name):  # another rank may have fetched it while this one waited
                    self._fetch(name, target)
        target.touch()
        return target

    def _is_here(self, name: str) -> bool:
        try:
            return (self._folder / name).stat().st_size == self._shards[name].size
        except FileNotFoundError:
            return False

    def _fetch(self, name: str, target: Path) -> None:
        shard, incoming = self._shards[name], self._folder / _INCOMING / name
        make_room(cache_folder(), shard.size)
        for last_try in (False, True):
            copy = fetch(RemoteFile((shard.url,), name, shard.size), incoming, self._options)
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
