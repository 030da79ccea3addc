"""Compressed shards: decompressed once into a bounded folder, equal to the plain ones."""

import errno
import logging
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.shards import cache, flat_files, mapped, room
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.shards.writing import write_shard
from tests.support.sequence_rows import assert_same_rows, make_rows
from tests.unit.shards.test_large_sets import write_set

MIB = 2**20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own, in a process that has used nothing yet."""
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(room, "_used", set())
    return tmp_path / "cache"


def cached(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.rows"))


def write_foreign(path: Path, dtype: str = "i4", n: int = 50) -> None:
    """Write a shard as NVIDIA's script does: gzip, chunked, a dtype of its own."""
    rows = make_rows(n, slots=3, seed=1)
    assert rows.static_masks is not None
    inside = np.arange(16) < rows.lengths[:, None]
    columns = {
        "input_ids": rows.input_ids,
        "input_mask": inside,
        "segment_ids": inside & (np.arange(16) >= rows.segment_b_starts[:, None]),
        "masked_lm_positions": rows.static_masks.positions,
        "masked_lm_ids": rows.static_masks.token_ids,
        "next_sentence_labels": rows.next_sentence_labels,
    }
    with h5py.File(path, "w") as file:
        for name, data in columns.items():
            small = "i1" if name in ("input_mask", "segment_ids", "next_sentence_labels") else dtype
            chunks = (7, 5)[: np.ndim(data)] if name != "masked_lm_ids" else (7, 2)
            if name == "masked_lm_positions":
                chunks = (11, 3)
            file.create_dataset(name, data=data, dtype=small, compression="gzip", chunks=chunks)


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "u2"])
def test_chunks_of_any_shape_and_dtype_give_the_same_rows(dtype: str, tmp_path: Path) -> None:
    write_foreign(tmp_path / "train_0.hdf5", dtype)
    chosen = np.random.default_rng(0).permutation(50)
    assert_same_rows(open_shards(tmp_path).rows(chosen), make_rows(50, slots=3, seed=1), chosen)


def test_other_shards_are_read_while_one_is_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(20), {}, "gzip")
    write_shard(tmp_path / "train_1.hdf5", make_rows(20, seed=1), {})
    begun, may_end, decompress = threading.Event(), threading.Event(), flat_files._decompress

    def slow(*arguments: object) -> None:
        begun.set()
        assert may_end.wait(20)
        decompress(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(flat_files, "_decompress", slow)
    shards = open_shards(tmp_path)
    with ThreadPoolExecutor(2) as threads:
        first = [threads.submit(shards.rows, np.arange(20)) for _ in range(2)]
        assert begun.wait(20)
        assert_same_rows(shards.rows(np.arange(20, 40)), make_rows(20, seed=1), np.arange(20))
        assert not any(each.done() for each in first)
        may_end.set()
        for each in first:
            assert_same_rows(each.result(), make_rows(20), np.arange(20))
    assert len(cached(tmp_path / "cache")) == 1


def test_second_open_decompresses_nothing_and_says_where_the_files_are(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(2):
        write_shard(tmp_path / f"train_{index}.hdf5", make_rows(20, seed=index), {}, "gzip")
    with caplog.at_level(logging.INFO):
        shards = open_shards(tmp_path)
        assert not folder.exists()  # opening alone costs nothing
        shards.rows(np.arange(40))
        shards.close()
        shards.rows(np.arange(40))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert f"2 compressed shard(s) take 0.00 GiB decompressed in {folder}" in said[0]
    made = {file: file.stat().st_ino for file in cached(folder)}
    assert len(made) == 2
    monkeypatch.setattr(flat_files, "_decompress", None)
    found = open_shards(tmp_path).rows(np.arange(20, 40))
    assert_same_rows(found, make_rows(20, seed=1), np.arange(20))
    assert {file: file.stat().st_ino for file in cached(folder)} == made


def test_a_shard_that_changed_or_a_file_cut_off_is_decompressed_anew(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "train_0.hdf5"
    for seed in (1, 2):
        write_shard(path, make_rows(20, seed=seed), {}, "gzip")
        assert_same_rows(open_shards(path).rows(np.arange(20)), make_rows(20, seed=seed), np.arange(20))
    assert len(cached(folder)) == 2
    for file in cached(folder):
        os.truncate(file, 10)
    assert_same_rows(open_shards(path).rows(np.arange(20)), make_rows(20, seed=2), np.arange(20))


def read_all(path: Path, start: object, made: object) -> None:
    decompress = flat_files._decompress

    def counted(*arguments: object) -> None:
        with made.get_lock():  # type: ignore[attr-defined]
            made.value += 1  # type: ignore[attr-defined]
        decompress(*arguments)  # type: ignore[arg-type]

    flat_files._decompress = counted  # type: ignore[assignment]
    start.wait(20)  # type: ignore[attr-defined]
    assert_same_rows(open_shards(path).rows(np.arange(2000)), make_rows(2000), np.arange(2000))


def test_processes_at_once_share_the_work(folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(2000), {}, "gzip")
    context = multiprocessing.get_context("fork")
    start, made = context.Barrier(3), context.Value("i", 0)
    processes = [context.Process(target=read_all, args=(tmp_path, start, made)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert made.value == 1
    assert len(cached(folder)) == 1
    assert not list(folder.glob(".partial-*"))


def test_least_recently_used_files_go_but_none_in_use_nor_any_of_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(3.5 / 1024))
    folder.mkdir()
    ages = {"a": 300, "b": 100, "c": 200}
    for name, age in ages.items():
        file = folder / f"{name * 64}.rows"
        file.write_bytes(bytes(MIB))
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    (folder / "thesis.txt").write_bytes(bytes(MIB))
    for name, age in ((".partial-old", 90_000), (".partial-new", 10)):
        (folder / name).write_text("x")
        os.utime(folder / name, ((folder / "thesis.txt").stat().st_mtime - age,) * 2)
    monkeypatch.setattr(room, "_used", {folder / f"{'a' * 64}.rows"})
    room.make_room(folder, MIB)
    left = {file.name[:12] for file in folder.iterdir()}
    assert left == {"a" * 12, "b" * 12, "thesis.txt", ".partial-new"}


def test_what_an_earlier_run_decompressed_of_the_set_in_use_is_spared(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        write_shard(tmp_path / f"train_{index}.hdf5", make_rows(20, seed=index), {}, "gzip")
    open_shards(tmp_path).rows(np.arange(40))  # two of three, then the run ends
    earlier = {file: file.stat().st_ino for file in cached(folder)}
    monkeypatch.setattr(room, "_used", set())
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", "1e-6")
    open_shards(tmp_path).rows(np.arange(40, 60))
    assert len(cached(folder)) == 3
    assert {file: file.stat().st_ino for file in cached(folder)} | earlier == {
        file: file.stat().st_ino for file in cached(folder)
    }


def test_a_set_larger_than_the_limit_works_and_is_warned_about(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", "1e-6")
    for index in range(3):
        write_shard(tmp_path / f"train_{index}.hdf5", make_rows(20, seed=index), {}, "gzip")
    shards = open_shards(tmp_path)
    for _ in range(2):
        shards.rows(np.arange(60))
    assert len(cached(folder)) == 3
    assert "more than $BERT_PYTORCH_CACHE_GIB" in caplog.text


def fill_the_disk(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # writes past it fail with EFBIG
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        open_shards(path).rows(np.arange(3))
    except OSError as error:
        os._exit(0 if error.errno == errno.EFBIG and str(error.filename).endswith(".rows") else 3)
    os._exit(4)


def test_a_full_disk_is_the_systems_error_and_leaves_no_part(folder: Path, tmp_path: Path) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(200), {}, "gzip")
    process = multiprocessing.get_context("fork").Process(target=fill_the_disk, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert [file.name for file in folder.iterdir() if not file.name.startswith(".lock")] == []


def test_damaged_compressed_data_are_said(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "train_0.hdf5"
    write_shard(path, make_rows(200), {}, "gzip")
    with h5py.File(path) as file:
        place = file["input_ids"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset : place.byte_offset + place.size] = bytes(place.size)
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"train_0.hdf5: input_ids cannot be decompressed from row 0 on .* Build it again"
    ):
        open_shards(path).rows(np.arange(3))
    assert cached(folder) == []


def test_the_environment_says_where_and_how_much() -> None:
    assert cache.cache_folder({"BERT_PYTORCH_CACHE": "/scratch/x", "XDG_CACHE_HOME": "/y"}) == Path("/scratch/x")
    assert cache.cache_folder({"XDG_CACHE_HOME": "/y"}) == Path("/y/bert_pytorch/shards")
    assert cache.cache_folder({}) == Path.home() / ".cache/bert_pytorch/shards"
    assert (cache.limit_bytes({}), cache.limit_bytes({"BERT_PYTORCH_CACHE_GIB": "0.5"})) == (200 * 2**30, 2**29)
    for wrong in ("many", "0", "-1", "nan", "inf"):
        with pytest.raises(ConfigError, match=f"BERT_PYTORCH_CACHE_GIB: found '{wrong}', wanted a number of GiB"):
            cache.limit_bytes({"BERT_PYTORCH_CACHE_GIB": wrong})


def test_what_is_decompressed_of_a_set_with_a_manifest_is_spared_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", "1e-6")
    rows = write_set(tmp_path, [20] * 4, compression="gzip")
    shards = open_shards(tmp_path)
    for start in range(0, 80, 20):
        assert_same_rows(shards.rows(np.arange(start, start + 20)), rows, np.arange(start, start + 20))
    assert len(cached(folder)) == 4


def test_a_file_that_others_remove_before_it_is_mapped_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "train_0.hdf5", make_rows(20), {}, "gzip")
    genuine, removals = mapped.flat_file, [1]

    def removed(*arguments: object) -> Path:
        file: Path = genuine(*arguments)  # type: ignore[arg-type]
        if removals[0]:
            removals[0] -= 1
            file.unlink()
        return file

    monkeypatch.setattr(mapped, "flat_file", removed)
    assert_same_rows(open_shards(tmp_path).rows(np.arange(20)), make_rows(20), np.arange(20))
    cached(folder)[0].unlink()
    removals[0] = 100
    with pytest.raises(InputError, match=r"train_0.hdf5: decompressed 5 times.* Raise \$BERT_PYTORCH_CACHE_GIB"):
        open_shards(tmp_path).rows(np.arange(20))
