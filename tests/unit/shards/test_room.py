"""Room in the cache that several share: who goes first, who gives way, and that ended processes hold nothing."""

import errno
import fcntl
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from bert_pytorch.shards import room
from bert_pytorch.shards.cache import INCOMING, REMOTE
from bert_pytorch.shards.locks import InUse
from bert_pytorch.shards.marks import RESERVED
from bert_pytorch.shards.room import NoRoom, Promise, reserved
from tests.support.data import REPOSITORY

KIB = 1024

HOLD = """
import sys, time
from pathlib import Path
from bert_pytorch.shards.locks import InUse
from bert_pytorch.shards.room import Promise, reserved
copies = Path(sys.argv[1])
promise, in_use = Promise(copies, 6 * 1024), InUse(copies)
in_use.add("old.hdf5")
with reserved(copies / "a.hdf5", 6 * 1024, "wait"):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a set's copies lie, in a cache of at most 10 KiB."""
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(10 * KIB / 2**30))
    monkeypatch.setattr(room, "_PAUSE_SECONDS", 0.01)
    folder = tmp_path / "cache" / REMOTE / "address" / "content"
    folder.mkdir(parents=True)
    return folder


def here(copies: Path, name: str, size: int, age: float = 0.0) -> Path:
    file = copies / name
    file.write_bytes(bytes(size))
    os.utime(file, (time.time() - age,) * 2)
    return file


def waiting(copies: Path) -> int:
    return len(list(copies.parents[2].glob(".waiting-*")))


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_whoever_waited_first_goes_first_and_what_is_fetched_ahead_takes_nothing_from_them(copies: Path) -> None:
    order = []
    let_go = threading.Event()

    def wait_for(name: str, size: int) -> None:
        with reserved(copies / name, size, "wait"):
            order.append(name)
            let_go.wait(20)

    threads = [threading.Thread(target=wait_for, args=each) for each in (("large", 8 * KIB), ("small", 3 * KIB))]
    with reserved(copies / "first", 6 * KIB):
        for number, thread in enumerate(threads, 1):
            thread.start()
            until(lambda number=number: waiting(copies) == number)  # type: ignore[misc]
        with pytest.raises(NoRoom), reserved(copies / "ahead", KIB, "give_up"):  # 3 KiB are free
            pass
        time.sleep(0.1)
        assert order == []  # `small` would fit
    until(lambda: order == ["large"])
    time.sleep(0.1)
    assert order == ["large"]
    let_go.set()
    for thread in threads:
        thread.join(20)
    assert order == ["large", "small"]


def test_what_is_in_use_is_spared_until_nobody_uses_it(copies: Path) -> None:
    old, new = here(copies, "old.hdf5", 4 * KIB, 90), here(copies, "new.hdf5", 4 * KIB, 10)
    one, other = InUse(copies), InUse(copies)
    for reader in (one, other):
        reader.add("old.hdf5")
    with reserved(copies / "a", 4 * KIB, "give_up"):
        assert (old.exists(), new.exists()) == (True, False)
    one.close()
    with pytest.raises(NoRoom), reserved(copies / "a", 8 * KIB, "give_up"):
        pass
    other.keep_only(frozenset())
    with reserved(copies / "a", 8 * KIB, "give_up"):
        assert not old.exists()


def test_nobody_waits_for_ever_and_readers_keep_what_they_have_mapped(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PATIENCE_SECONDS", 0.1)
    used = here(copies, "used.hdf5", 8 * KIB)
    used.write_bytes(b"x" * 8 * KIB)
    reader = InUse(copies)
    reader.add(used.name)
    with used.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        with reserved(copies / "a", 8 * KIB, "wait"):
            assert not used.exists()
        assert mapping[:] == b"x" * 8 * KIB


def test_whoever_waits_can_be_called_off(copies: Path) -> None:
    with (
        reserved(copies / "first", 10 * KIB),
        pytest.raises(NoRoom, match="no room"),
        reserved(copies / "a", 1, "wait", lambda: True),
    ):
        pass
    assert list(copies.parents[2].glob(".*-*-*")) == []


def test_a_killed_process_holds_no_room_no_promise_and_no_file(copies: Path) -> None:
    here(copies, "old.hdf5", 4 * KIB)
    other = copies.parent / "other"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(copies)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        with pytest.raises(NoRoom), reserved(other / "b", 1, "give_up"):
            pass
        during = Promise(other, KIB)
        assert during.beside == 6 * KIB
        process.kill()
    after = Promise(other, KIB)
    assert after.beside == 0  # its own folder counts once
    with reserved(other / "b", 10 * KIB, "give_up"):
        assert not (copies / "old.hdf5").exists()
    for promise in (during, after):
        promise.close()
    assert list(copies.parents[2].glob(".*-*-*")) == []


def test_parts_that_nobody_fetches_go_but_never_those_of_whoever_asks(copies: Path) -> None:
    for name in ("a", "b"):
        (copies / INCOMING / name).mkdir(parents=True)
        (copies / INCOMING / name / "part").write_bytes(bytes(6 * KIB))
    with reserved(copies / "a", 8 * KIB, "give_up"):
        assert (copies / INCOMING / "a" / "part").stat().st_size == 6 * KIB
        assert not (copies / INCOMING / "b").exists()
        with pytest.raises(NoRoom), reserved(copies / "b", 4 * KIB, "give_up"):
            pass
        assert (copies / INCOMING / "a").exists()


def test_readers_of_one_set_share_its_promise(copies: Path) -> None:
    first, second = Promise(copies, 6 * KIB), Promise(copies, 6 * KIB)
    third = Promise(copies.parent / "other", KIB)
    assert (first.beside, second.beside, third.beside) == (0, 0, 6 * KIB)
    for promise in (first, second, third):
        promise.close()


def test_a_killed_process_holds_no_room_where_files_to_lock_must_be_open_to_write(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As flock(2) tells of NFS."""
    genuine = fcntl.flock

    def as_nfs(file: int | IO[bytes], operation: int) -> None:
        to_write = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if operation & fcntl.LOCK_EX and not to_write:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        genuine(file, operation)

    monkeypatch.setattr(fcntl, "flock", as_nfs)
    (copies.parents[2] / f"{RESERVED}{1:020d}-{'0' * 16}-killed").write_bytes(bytes(10 * KIB))
    with reserved(copies / "b", 10 * KIB, "give_up"), pytest.raises(NoRoom):
        with reserved(copies / "c", 1, "give_up"):  # those of the living count
            pass


def test_a_killed_process_makes_nobody_wait_where_there_are_no_locks(
    copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "fcntl", refused)
    (copies.parents[2] / f"{RESERVED}{1:020d}-{'0' * 16}-killed").write_bytes(bytes(10 * KIB))
    with reserved(copies / "b", 10 * KIB, "give_up"):
        pass
