"""Processes that share a cache of remote shards: one download, one limit, and what a killed one leaves."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bert_pytorch.data.shard_cache import RemoteShard, ShardCache
from bert_pytorch.errors import ConfigError
from tests.support.data import REPOSITORY
from tests.support.wire import Break, wire
from tests.unit.data.test_remote import URL, bucket, loader_of, local, s3, server
from tests.unit.data.test_remote_cache import bytes_below, largest

__all__ = ["local", "s3", "server"]

FETCH_ONE = """
import sys
from pathlib import Path
from bert_pytorch.data.shard_cache import RemoteShard, ShardCache
folder, name, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
cache = ShardCache(folder, {name: RemoteShard("s3://corpora/set/" + name, size, None)})
cache.locate(folder / name)
cache.close()
"""

READ_EPOCH = """
import sys
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import BatchMaker, TrainingLoader
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
url, window, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
config = DataConfig(input_dir=(url,), global_batch_size=16, num_workers=1, shuffle_window=window, remote_prefetch=2)
corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
batches = BatchMaker(corpora, corpora.vocabulary, policy_for(config, corpora.vocabulary), next_sentence=True)
for update in TrainingLoader(batches, config, rank=rank, world_size=2).stream(0):
    if update.end_position > corpora.num_sequences:
        break
corpora.close()
"""

READ_IN_PAIRS = """
import sys
from pathlib import Path
from bert_pytorch.data.shard_cache import RemoteShard, ShardCache
from bert_pytorch.shards import room
room._PATIENCE_SECONDS = 0.3
folder, size, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
cache = ShardCache(folder, {name: RemoteShard("s3://corpora/set/" + name, size, None) for name in names}, 1, 1)
for pair in zip(names, names[1:]):
    cache.expect([folder / name for name in pair])
    for name in pair:
        while not cache.locate(folder / name).exists():  # the other one ran out of patience before it was mapped
            pass
cache.close()
"""


def start(code: str, *words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def most_bytes(folder: Path, processes: Sequence["subprocess.Popen[str]"]) -> int:
    """Return the most that was in a folder at a time while processes ran; they must end well."""
    most, deadline = 0, time.monotonic() + 60
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        most = max(most, bytes_below(folder))
        time.sleep(0.005)
    for process in processes:
        process.kill()
        _, said = process.communicate()
        assert process.returncode == 0, said
    return most


def test_ranks_ask_for_each_shard_once(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wire(server, of=".hdf5", bytes_per_second=500_000) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        most_bytes(tmp_path, [start(READ_EPOCH, URL, 0, rank) for rank in range(2)])
    names = sorted(path.name for path in local.glob("train_*.hdf5"))
    assert {name: len(line.asked(name)) for name in names} == dict.fromkeys(names, 1)


def test_two_runs_keep_one_limit_together(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [*local.glob("train_*.hdf5"), local / "manifest.json", *local.glob("vocab*")]:
        bucket(server).put_object(Key=f"other/{path.name}", Body=path.read_bytes())
    limit = 4 * largest(local).stat().st_size
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str((limit + 0.5) / 2**30))
    with wire(server, of=".hdf5", bytes_per_second=500_000) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        runs = [start(READ_EPOCH, url, 1, 0) for url in (URL, "s3://corpora/other")]
        most = most_bytes(tmp_path / "cache", runs)
    assert limit / 2 < most <= limit


def test_a_run_that_has_no_room_beside_another_is_refused_at_its_start(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [local / "train_0.hdf5", local / "train_1.hdf5"]:
        bucket(server).put_object(Key=f"foreign/{path.name}", Body=path.read_bytes())
    size = largest(local).stat().st_size
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(3 * size / 2**30))
    other = ShardCache(tmp_path / "cache/remote/x/y", {"a": RemoteShard("s3://corpora/a", 2 * size, None)})
    with pytest.raises(ConfigError, match=r"beside 0\.00 GiB of other sets that this or other processes read"):
        loader_of(URL, shuffle_window=1)
    other.close()
    loader_of(URL, shuffle_window=1).corpora.close()


def test_runs_that_hold_what_each_other_waits_for_both_end_within_the_limit(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, names = 200_000, [f"part_{number}.hdf5" for number in range(4)]
    for name in names:
        bucket(server).put_object(Key=f"set/{name}", Body=bytes(size))
    limit = 2 * size  # each needs as much, and neither was refused
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str((limit + 0.5) / 2**30))
    runs = [start(READ_IN_PAIRS, tmp_path / "cache/remote" / run / "content", size, *names) for run in ("a", "b")]
    assert size < most_bytes(tmp_path / "cache", runs) <= limit


def test_a_killed_download_is_continued_and_holds_no_room(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 << 20
    content = np.random.default_rng(0).bytes(size)
    bucket(server).put_object(Key="set/large.hdf5", Body=content)
    folder = tmp_path / "cache/remote/a/b"
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str((size + 0.5) / 2**30))  # none beside the killed one's
    with wire(server, [Break(1 << 20, stalls=True)]) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        process = start(FETCH_ONE, folder, "large.hdf5", size)
        deadline = time.monotonic() + 20
        while _arrived(folder) < (1 << 20) - 2 * (1 << 16) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    arrived = _arrived(folder)
    assert (1 << 20) - 2 * (1 << 16) <= arrived < 1 << 20
    assert list(folder.glob("*.hdf5")) == []
    with wire(server) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        process = start(FETCH_ONE, folder, "large.hdf5", size)
        _, said = process.communicate(timeout=25)
        assert process.returncode == 0, said
    assert (folder / "large.hdf5").read_bytes() == content
    assert [head for head in line.heads if head.startswith("Range")] == [f"Range: bytes={arrived}-"]
    assert list((tmp_path / "cache").glob(".*-*-*")) == []


def _arrived(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob(".partial-*large.hdf5"))
