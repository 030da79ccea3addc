"""Files are whole or absent, and a folder has one writer; whatever kills the writer."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    atomic_write_json,
    atomic_write_text,
    exclusive_lock,
    remove_partial_files,
    sha256_of,
)
from tests.support.data import REPOSITORY
from tests.support.environment import need_root, small_disk


def child(code: str, *words: object) -> "subprocess.Popen[str]":
    """Start a program that prints a line once it is where it should be killed."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_written_file_is_whole_and_leaves_nothing_beside_it(tmp_path):
    atomic_write_text(tmp_path / "deep" / "a.txt", "é\n")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "é\n".encode()
    assert names_in(tmp_path / "deep") == ["a.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), atomic_path(path) as temporary:
        temporary.write_text("ne" * 100_000 + "\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_writer_that_is_killed_leaves_the_old_file_and_what_it_left_can_be_cleared(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom bert_pytorch.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('ne')\n    print('here', flush=True)\n    time.sleep(60)\n"
    )
    with child(code, path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
    assert path.read_text() == "old"
    assert len(names_in(tmp_path)) == 2
    remove_partial_files(tmp_path)
    assert names_in(tmp_path) == ["a.txt"]


def test_a_reader_sees_the_old_file_or_the_new_one_never_a_part(tmp_path):
    path = tmp_path / "a.txt"
    texts = {letter * 200_000 for letter in "ab"}
    atomic_write_text(path, "a" * 200_000)
    stop = threading.Event()
    seen = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for text in sorted(texts):
            atomic_write_text(path, text)
    stop.set()
    reader.join()
    assert seen <= texts


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_is_readable_by_those_whom_the_umask_allows(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        atomic_write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_equal_values_are_equal_bytes(tmp_path):
    atomic_write_json(tmp_path / "a.json", {"b": [1, 2], "a": "é"})
    atomic_write_json(tmp_path / "b.json", {"a": "é", "b": [1, 2]})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "é", "b": [1, 2]}


def test_the_longest_file_name_that_the_system_allows_can_be_written(tmp_path):
    longest = tmp_path / ("n" * (os.pathconf(tmp_path, "PC_NAME_MAX")))
    atomic_write_text(longest, "text")
    assert longest.read_text() == "text"


def test_the_checksum_is_sha256(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_a_full_disk_leaves_the_old_file_and_names_the_path(tmp_path):
    with small_disk(tmp_path / "disk", size_kib=64) as disk:
        path = disk / "a.txt"
        atomic_write_text(path, "old")
        with pytest.raises(OSError, match="No space left") as refused:
            atomic_write_text(path, "x" * 200_000)
        assert refused.value.errno == errno.ENOSPC
        assert path.read_text() == "old"
        assert names_in(disk) == ["a.txt"]


def test_a_folder_where_the_file_should_be_is_told_by_its_name(tmp_path):
    (tmp_path / "a.txt" / "b").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as refused:
        atomic_write_text(tmp_path / "a.txt", "x")
    assert refused.value.filename == str(tmp_path / "a.txt")
    assert names_in(tmp_path) == ["a.txt"]


def test_errors_about_other_files_keep_their_names(tmp_path):
    with pytest.raises(FileNotFoundError) as refused, atomic_path(tmp_path / "a.txt"):
        (tmp_path / "source").read_text()
    assert refused.value.filename == str(tmp_path / "source")


def test_a_full_disk_is_told_by_the_front_door_with_the_place(tmp_path, capsys):
    from bert_pytorch.errors import front_door

    with small_disk(tmp_path / "disk", size_kib=64) as disk:
        assert front_door(lambda: atomic_write_text(disk / "a.txt", "x" * 200_000)) == 1
        told = capsys.readouterr().err
    assert told.startswith(f"error: {disk / 'a.txt'}: the disk is full")


def test_a_folder_that_cannot_be_written_is_told():
    need_root()
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom bert_pytorch.errors import front_door\n"
        "from bert_pytorch.files import atomic_write_text\nos.setgid(65534)\nos.setuid(65534)\n"
        "sys.exit(front_door(lambda: atomic_write_text(Path(sys.argv[1]) / 'a.txt', 'x')))\n"
    )
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let only root in
        folder = Path(name)
        folder.chmod(0o755)
        command = [sys.executable, "-c", code, name]
        result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: {folder / 'a.txt'}: permission denied")
        assert names_in(folder) == []


HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom bert_pytorch.files import exclusive_lock\n"
    "with exclusive_lock(Path(sys.argv[1]), 'runs'):\n    print('here', flush=True)\n    time.sleep(60)\n"
)


def test_the_second_writer_is_refused_by_name_and_a_kill_frees_the_lock(tmp_path):
    with child(HOLDER, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        with pytest.raises(InputError) as refused, exclusive_lock(tmp_path, "runs"):
            pass
        assert f"process {process.pid}" in str(refused.value)
        assert "two runs in one folder" in str(refused.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with exclusive_lock(tmp_path, "runs"):
        pass


def test_a_lock_is_free_again_after_its_block_whatever_ends_it(tmp_path):
    with pytest.raises(ValueError, match="x"), exclusive_lock(tmp_path, "runs"):
        raise ValueError("x")
    with exclusive_lock(tmp_path, "runs"), pytest.raises(InputError), exclusive_lock(tmp_path, "runs"):
        pass
    with exclusive_lock(tmp_path, "runs"):
        pass


def test_a_worker_that_outlives_the_writer_does_not_keep_the_lock(tmp_path):
    start = "import subprocess; worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'])"
    code = HOLDER.replace("    print('here'", f"    {start}\n    print(worker.pid")
    with child(code, tmp_path) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
        process.wait()
        try:
            with exclusive_lock(tmp_path, "runs"):
                pass
        finally:
            os.kill(worker, signal.SIGKILL)


def test_clearing_touches_only_unfinished_files(tmp_path):
    for name in ("a.txt", f"{TEMPORARY_PREFIX}x-a.txt", ".hidden"):
        (tmp_path / name).write_text("")
    remove_partial_files(tmp_path)
    assert names_in(tmp_path) == [".hidden", "a.txt"]
