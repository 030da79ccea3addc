"""Room in the cache: what is to be written is reserved first, and the folder stays under its limit.

Processes share folder and limit.  Who goes first:

1. A set of remote shards is opened where what it must hold at a time fits beside what all open sets must (`Promise`).
2. What is fetched ahead takes room that nobody uses or waits for; where there is none, it is left for later.
3. What is needed now waits until there is room, first come, first served.
4. Who has waited for half a minute takes what was used least recently, though it is in use: its reader goes on from the
   mapping it has, for which the disk holds the bytes until it is closed.

So nobody waits for ever, whatever others hold.  Files made from what lies on this machine do not wait: a set of them
that is larger than the limit is read all the same, after a warning.
"""

import contextlib
import itertools
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from bert_pytorch.errors import InputError
from bert_pytorch.files import TEMPORARY_PREFIX, atomic_path
from bert_pytorch.shards.cache import INCOMING, REMOTE, cache_folder, limit_bytes, mark_used
from bert_pytorch.shards.locks import locked, unused
from bert_pytorch.shards.marks import PROMISED, RESERVED, WAITING, Mark, key_of, living

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{64}\.(rows|tokens)")
_ABANDONED_SECONDS = 24 * 3600
_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_LOCK = ".lock-room"

_used: set[Path] = set()
"""Files made here that this process reads."""

WhenFull = Literal["exceed", "give_up", "wait"]


class NoRoom(InputError):  # noqa: N818 not a defect
    """The cache has no room for a file now."""


def spare(files: Iterable[Path]) -> None:
    """Keep files made here from being removed by this process."""
    _used.update(files)


def built_once(name: str, size: int, build: Callable[[Path], None]) -> Path:
    """Return a file of the cache that is not of one shard, built where it is not there yet.

    Processes share the work: one builds, the others wait.

    Args:
        name: 64 hexadecimal digits, an identity of what it is built from, and `.tokens`.
        size: bytes it takes, about.
        build: writes the file to the path that it is given.
    """
    assert _NAME.fullmatch(name)
    target = cache_folder() / name
    _used.add(target)
    if not target.exists():
        with locked(target.parent / f".lock-{target.stem}"):
            if not target.exists():
                with reserved(target, size), atomic_path(target) as temporary:
                    build(temporary)
                with _room_lock(target.parent):
                    make_room(target.parent, 0)  # it may have become larger than anybody could tell
    mark_used(target)
    return target


@contextlib.contextmanager
def reserved(
    target: Path, size: int, when_full: WhenFull = "exceed", cancelled: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Make room for a file, whose bytes count as there until the end of the block: by then it is.

    Args:
        target: the file; one at a time reserves for it (`locks.alone`).
        size: of it in bytes.
        when_full: what to do where the limit leaves no room, as told above.
        cancelled: asked while waiting.

    Raises:
        NoRoom: given up.
    """
    folder, start = cache_folder(), time.monotonic()
    with contextlib.ExitStack() as held:
        mark: Mark | None = None
        for asked in itertools.count():
            with _room_lock(folder):
                if mark is None:
                    mark = held.enter_context(contextlib.closing(Mark(folder, WAITING, target, size)))
                impatient = time.monotonic() - start > _PATIENCE_SECONDS
                if make_room(folder, size, mark, in_use_too=impatient) or when_full == "exceed":
                    mark.grant()
                    break
            if when_full == "give_up" or cancelled():
                raise NoRoom(f"{target}: there is no room for its {size:,} bytes in the cache now.")
            if not asked:
                logger.info("%s: waiting for room in the cache, which others use", target)
            time.sleep(_PAUSE_SECONDS)
        yield


def _room_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    return locked(folder / _LOCK, logging.DEBUG)  # held for moments


class Promise:
    """Room that an open set of remote shards must have, until it is closed or its process ends.

    Args:
        copies: the folder of the set's copies; readers of one folder share its room.
        size: bytes.

    Attributes:
        size: as given.
        beside: bytes promised to other sets when this one was made, by all processes.
    """

    def __init__(self, copies: Path, size: int) -> None:
        folder, self.size = cache_folder(), size
        with _room_lock(folder):
            others: dict[str, int] = {}
            for mark in living(folder, PROMISED):
                others[mark.key] = max(others.get(mark.key, 0), mark.size)
            others.pop(key_of(copies), None)
            self.beside = sum(others.values())
            self._mark = Mark(folder, PROMISED, copies, size)

    def close(self) -> None:
        """Give it back."""
        self._mark.close()


class _Held(NamedTuple):
    """What takes room in the cache and may be removed."""

    last_use: float
    size: int
    path: Path


def make_room(folder: Path, size: int, mark: Mark | None = None, *, in_use_too: bool = False) -> bool:
    """Remove what was used least recently until `size` more bytes stay under the limit; under the room's lock.

    Where the disk is fuller than the limit foresees, its free bytes count instead.

    Args:
        folder: of the cache.
        size: bytes that are to be written.
        mark: of who asks; whoever waits longer goes first.
        in_use_too: whether what is in use may go.

    Returns:
        Whether they stay under the limit.
    """
    ahead = [each for each in living(folder, WAITING) if mark is not None and each.since < mark.since]
    pending = [*living(folder, RESERVED), *ahead]
    arriving = {each.key for each in pending} | ({mark.key} if mark else set())
    held, taken = sorted(_held(folder, arriving)), sum(each.size for each in pending)
    excess = sum(each.size for each in held) + taken + size - limit_bytes()
    missing = taken + size - shutil.disk_usage(folder).free
    for each in held:
        if max(excess, missing) > 0 and (in_use_too or each.path not in _used) and _removed(each.path, in_use_too):
            excess, missing = excess - each.size, missing - each.size
    return excess <= 0


def _held(folder: Path, arriving: set[str]) -> Iterator[_Held]:
    """Yield all files that count, but the parts of those that are `arriving`: their reservations do."""
    now = time.time()
    flat, fetched = folder.glob("*"), (folder / REMOTE).glob("*/*/*.hdf5")
    for file in itertools.chain(flat, fetched, (folder / REMOTE).glob(f"*/*/{INCOMING}/*")):
        with contextlib.suppress(FileNotFoundError):  # other processes may take it away
            state = file.stat()
            used = max(state.st_atime, state.st_mtime)
            if file.parent.name == INCOMING:
                if key_of(file.parent.parent / file.name) not in arriving:
                    yield _Held(used, sum(part.stat().st_size for part in file.rglob("*") if part.is_file()), file)
            elif file.name.startswith(TEMPORARY_PREFIX) and now - state.st_mtime > _ABANDONED_SECONDS:
                file.unlink()
            elif _NAME.fullmatch(file.name) or file.parent != folder:
                yield _Held(used, state.st_size, file)


def _removed(path: Path, in_use_too: bool) -> bool:
    """Remove a file that nobody uses, or the parts of one that nobody is fetching; tell whether it is gone."""
    if path.parent.name == INCOMING:
        shutil.rmtree(path, ignore_errors=True)
        return True
    with unused(path) as nobody:
        if nobody or in_use_too:
            path.unlink(missing_ok=True)  # whoever has it mapped keeps it until the mapping closes
            if path.suffix == ".tokens":
                path.with_name(f".lock-{path.stem}").unlink(missing_ok=True)
    return nobody or in_use_too
