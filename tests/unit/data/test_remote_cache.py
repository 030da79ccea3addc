"""The cache of remote shards: its bound on the disk, copies of other contents, stops."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from bert_pytorch.data import remote, shard_cache
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.corpora import Corpora
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.data.shard_cache import RemoteShard, ShardCache
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.remote.errors import TransferError
from bert_pytorch.remote.fetch import FetchOptions
from bert_pytorch.shards.cache import cache_folder
from bert_pytorch.shards.locks import locked
from bert_pytorch.shards.opening import open_shards
from tests.support.wire import wire
from tests.unit.data.test_remote import URL, bucket, loader_of, local, s3, server

__all__ = ["local", "s3", "server"]


def cache_of(
    local: Path, folder: Path, threads: int, options: FetchOptions | None = None, window: int = 0
) -> ShardCache:
    """Return a cache of the set's training shards."""
    shards = {
        path.name: RemoteShard(f"s3://corpora/set/{path.name}", path.stat().st_size, None)
        for path in local.glob("train_*.hdf5")
    }
    return ShardCache(folder, shards, window, threads, options)


def open_foreign(local: Path, prefix: str, **settings: object) -> Corpora:
    remote._listed.cache_clear()
    config = DataConfig.model_validate({"input_dir": f"s3://corpora/{prefix}", **settings})
    return open_corpora(config.input_dir, "train", config, open_shards(local).vocabulary, lowercase=True)


def largest(local: Path) -> Path:
    return max(local.glob("train_*.hdf5"), key=lambda path: path.stat().st_size)


def test_shards_that_were_passed_take_no_disk_space(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(3 * largest(local).stat().st_size / 2**30))
    loader = loader_of(URL, shuffle_window=1, num_workers=2)
    updates = loader.stream(0)
    while next(updates).end_position < loader.corpora.num_sequences:
        mappings = Path("/proc/self/maps").read_text().splitlines()
        assert [line for line in mappings if str(tmp_path) in line and line.endswith("(deleted)")] == []
    updates.close()
    loader.corpora.close()


def test_shards_fetched_side_by_side_keep_the_bound(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4 * largest(local).stat().st_size
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(limit / 2**30))
    folder = tmp_path / "cache/remote/address/content"
    paths = [folder / path.name for path in sorted(local.glob("train_*.hdf5"))]
    cache = cache_of(local, folder, 4, window=2)
    fetch, held = shard_cache.fetch, []

    def measured(*words: object) -> Path:
        time.sleep(0.2)  # all threads have made room by now
        copy = fetch(*words)
        held.append(bytes_below(folder))
        return copy

    monkeypatch.setattr(shard_cache, "fetch", measured)
    for some in (paths[:4], paths[4:8]):
        cache.expect(some)
        for path in some:
            cache.locate(path)
    assert len(held) == 8
    assert max(held) <= limit
    assert cache.locate(paths[0]).read_bytes() == (local / paths[0].name).read_bytes()
    cache.close()


def bytes_below(folder: Path) -> int:
    """Sum up the files' bytes, parts included; one that is renamed meanwhile counts once."""
    sizes = {}
    with locked(cache_folder() / ".lock-room"):  # nothing is removed meanwhile, so that all of it is there at a time
        for parent, _, names in os.walk(folder):
            for name in [name for name in names if name.endswith(".hdf5")]:
                with contextlib.suppress(FileNotFoundError):
                    state = (Path(parent) / name).stat()
                    sizes[state.st_ino] = state.st_size
    return sum(sizes.values())


def test_a_fingerprint_is_no_path(server: str, local: Path, tmp_path: Path) -> None:
    manifest = json.loads((local / "manifest.json").read_text())
    manifest["fingerprint"] = "/../../../xx"
    bucket(server).put_object(Key="set/manifest.json", Body=json.dumps(manifest).encode())
    loader_of(URL, remote_prefetch=0).update_at(0)
    found = list(tmp_path.rglob("*.hdf5"))
    assert found
    assert all((tmp_path / "cache").resolve() in path.resolve().parents for path in found)


def test_other_objects_of_a_set_without_a_manifest_are_fetched_anew(server: str, local: Path, tmp_path: Path) -> None:
    for name in ("train_0.hdf5", "train_1.hdf5"):
        bucket(server).put_object(Key=f"foreign/{name}", Body=(local / name).read_bytes())
    before = open_foreign(local, "foreign").num_sequences
    changed = tmp_path / "changed.hdf5"
    changed.write_bytes((local / "train_0.hdf5").read_bytes())
    with h5py.File(changed, "r+") as file:
        file["input_ids"][0, 1] = 1234
    assert changed.stat().st_size == (local / "train_0.hdf5").stat().st_size
    bucket(server).put_object(Key="foreign/train_0.hdf5", Body=changed.read_bytes())
    bucket(server).Object("foreign/train_1.hdf5").delete()
    after = open_foreign(local, "foreign")
    assert after.num_sequences < before
    assert after.sources[0].rows(np.arange(1)).input_ids[0, 1] == 1234


def test_a_set_that_cannot_be_opened_promises_itself_no_room(server: str, local: Path, tmp_path: Path) -> None:
    bucket(server).put_object(Key="garbage/train_0.hdf5", Body=b"x" * 999)
    with pytest.raises(InputError, match=r"train_0.hdf5: not a readable HDF5 file") as caught:
        open_foreign(local, "garbage")
    assert list((tmp_path / "cache").glob(".promised-*")) == []
    del caught  # it held all frames until here


def test_a_set_without_a_manifest_must_fit_whole(server: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in local.glob("train_*.hdf5"):
        bucket(server).put_object(Key=f"foreign/{path.name}", Body=path.read_bytes())
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(3 * largest(local).stat().st_size / 2**30))
    with pytest.raises(ConfigError, match=r"Raise \$BERT_PYTORCH_CACHE_GIB.*upload a set with its manifest\.json"):
        open_foreign(local, "foreign", shuffle_window=1)


def test_a_compressed_shard_is_decompressed_once(server: str, local: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.hdf5"
    with h5py.File(local / "train_0.hdf5") as source, h5py.File(packed, "w") as target:
        for name in source:
            target.create_dataset(name, data=source[name][:], compression="gzip")
        target.attrs.update(source.attrs)
    bucket(server).put_object(Key="gzip/train_0.hdf5", Body=packed.read_bytes())
    for _ in range(3):
        corpora = open_foreign(local, "gzip")
        corpora.sources[0].rows(np.arange(3))
        corpora.close()
    assert len(list((tmp_path / "cache").glob("*.rows"))) == 1


def test_a_shard_that_is_removed_before_it_is_mapped_is_fetched_again(
    server: str, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = loader_of(URL, remote_prefetch=0)
    locate = ShardCache.locate
    removed = set()

    def removing(cache: ShardCache, path: Path) -> Path:
        found = locate(cache, path)
        if path not in removed:
            removed.add(path)
            found.unlink()
        return found

    monkeypatch.setattr(ShardCache, "locate", removing)
    source, same = loader.corpora.sources[0], open_shards(local)
    indices = np.arange(0, same.num_sequences, 5)
    assert np.array_equal(source.rows(indices).input_ids, same.rows(indices).input_ids)
    assert len(removed) > 5


def test_what_is_not_expected_any_more_can_still_be_had(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fetch, goes_on = tmp_path / "cache/remote/a/b", shard_cache.fetch, threading.Event()
    monkeypatch.setattr(shard_cache, "fetch", lambda *words: (goes_on.wait(10), fetch(*words))[1])
    cache = cache_of(local, folder, 1)
    first, second = folder / "train_0.hdf5", folder / "train_1.hdf5"
    cache.expect([first, second])
    found: list[Path] = []
    thread = threading.Thread(target=lambda: found.append(cache.locate(second)))
    cache.expect([])
    thread.start()
    goes_on.set()
    thread.join(10)
    cache.close()
    assert found == [second]


def test_closing_ends_pauses_threads_and_files(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = tmp_path / "cache/remote/a/b", threading.Event()
    threads = set(threading.enumerate())
    with wire("http://127.0.0.1:9", on_request=asked.set) as line:  # nothing listens there
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        cache = cache_of(local, folder, 2, FetchOptions(first_pause_seconds=600.0))
        cache.expect([folder / "train_1.hdf5"])
        assert asked.wait(20)
        pending = cache._pending["train_1.hdf5"]
        start = time.monotonic()
        cache.close()
        assert time.monotonic() - start < 29  # a pause takes 30 s at least
        with pytest.raises(TransferError, match="train_1"):
            pending.result(0)
    started = set(threading.enumerate()) - threads
    assert [thread.name for thread in started if thread.name.startswith("shards")] == []
    assert [file for file in _open_files() if str(tmp_path) in file] == []


def _open_files() -> list[str]:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(str(link.readlink()))
    return links
