"""Lines to S3 that are slow or stall: a run goes on, and computes while shards come."""

import threading
from pathlib import Path

import pytest

from bert_pytorch.data import remote, shard_cache
from bert_pytorch.data.shard_cache import ShardCache
from bert_pytorch.remote.fetch import FetchOptions
from tests.support.wire import Break, wire
from tests.unit.data.test_remote import URL, assert_same_updates, bucket, loader_of, local, s3, server
from tests.unit.data.test_remote_cache import cache_of, largest

__all__ = ["local", "s3", "server"]


def test_a_line_that_is_slow_and_stalls_ends_no_run(
    server: str, local: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    patience = FetchOptions(first_pause_seconds=0.001, timeout_seconds=0.3)
    monkeypatch.setattr(shard_cache, "FetchOptions", lambda **_: patience)
    monkeypatch.setattr(remote, "FetchOptions", lambda: patience)
    stalls = [Break(3000, stalls=True), None, Break(1, stalls=True), Break(9000, stalls=True)]
    with wire(server, stalls, of=".hdf5", bytes_per_second=200_000) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        loader = loader_of(URL, remote_prefetch=2, shuffle_window=2)
        assert_same_updates(loader, loader_of(str(local), shuffle_window=2), 4)
        loader.corpora.close()
    assert "no answer in time" in caplog.text


def test_a_stalled_transfer_goes_on_from_the_last_bytes_that_came(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 2048
    bucket(server).put_object(Key="set/large.hdf5", Body=content)
    patience = FetchOptions(timeout_seconds=0.3, first_pause_seconds=0.001)
    folder = tmp_path / "cache/remote/a/b"
    shard = shard_cache.RemoteShard("s3://corpora/set/large.hdf5", len(content), None)
    with wire(server, [Break(300_000, stalls=True), Break(150_000, stalls=True)]) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        cache = ShardCache(folder, {"large.hdf5": shard}, 0, 0, patience)
        assert cache.locate(folder / "large.hdf5").read_bytes() == content
        cache.close()
    starts = [int(head[len("Range: bytes=") : -1]) for head in line.heads if head.startswith("Range")]
    assert len(starts) == 2
    assert 300_000 - 2 * (1 << 16) < starts[0] < starts[1] < 450_000


def test_a_run_that_computes_longer_than_the_line_takes_waits_for_the_first_shard_only(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    located: list[tuple[str, bool]] = []
    locate = ShardCache.locate

    def watched(cache: ShardCache, path: Path) -> Path:
        located.append((path.name, path.exists()))
        return locate(cache, path)

    monkeypatch.setattr(ShardCache, "locate", watched)
    with wire(server, of=".hdf5", bytes_per_second=300_000) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        loader = loader_of(URL, shuffle_window=1, remote_prefetch=1, global_batch_size=8)
        cache = loader.corpora.sources[0]._files
        assert isinstance(cache, ShardCache)
        for update in loader.stream(0):
            for coming in list(cache._pending.values()):  # the update takes as long as what comes meanwhile
                coming.result(20)
            if update.end_position >= loader.corpora.num_sequences:
                break
        loader.corpora.close()
    waited = [name for name, there in located if not there]
    assert waited == [located[0][0]]
    assert len(located) > 6


def test_what_is_needed_now_does_not_wait_for_a_thread(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fetch, goes_on = tmp_path / "cache/remote/a/b", shard_cache.fetch, threading.Event()
    first, second = folder / "train_0.hdf5", folder / "train_1.hdf5"

    def stuck_ahead(file: object, *words: object) -> Path:
        if threading.current_thread().name.startswith("shards"):
            goes_on.wait(20)
        return fetch(file, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(shard_cache, "fetch", stuck_ahead)
    cache = cache_of(local, folder, 1)
    cache.expect([first, second])
    assert cache.locate(second).exists()
    assert not first.exists()
    goes_on.set()
    assert cache.locate(first).exists()
    cache.close()


def test_a_shard_that_could_not_be_had_ahead_is_tried_again_when_it_is_needed(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shard = tmp_path / "cache/remote/a/b", largest(local)
    patience = FetchOptions(retries=0, first_pause_seconds=0.001, timeout_seconds=0.3)
    with wire(server, [Break(2000), Break(2000, stalls=True)]) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        cache = cache_of(local, folder, 1, patience)
        cache.expect([folder / shard.name])
        assert cache._pending[shard.name].exception(20) is not None
        monkeypatch.setattr(cache, "_options", patience._replace(retries=1))
        assert cache.locate(folder / shard.name).read_bytes() == shard.read_bytes()
        cache.close()
    assert len(line.asked(shard.name)) == 3
