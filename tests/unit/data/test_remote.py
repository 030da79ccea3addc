"""Shards in S3: the same updates as from a local copy, over lines that break, within the bounds of the cache."""

import threading
import weakref
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest

from bert_pytorch.corpus.__main__ import main as corpus
from bert_pytorch.data import remote, shard_cache
from bert_pytorch.data.batch_making import BatchMaker
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import TrainingLoader, Update
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import held_out_beside, open_corpora
from bert_pytorch.data.shard_cache import ShardCache
from bert_pytorch.errors import ConfigError, DamagedShardError, InputError
from bert_pytorch.remote import s3 as door
from bert_pytorch.remote.fetch import FetchOptions
from bert_pytorch.shards.opening import open_shards
from tests.support.data import shared_data
from tests.support.s3_server import CREDENTIALS, s3_server, use_s3
from tests.support.wire import Break, wire

boto3 = pytest.importorskip("boto3")
URL = "s3://corpora/set"
AT_ONCE = FetchOptions(first_pause_seconds=0.001)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of several shards, encoded from real text."""
    folder = tmp_path_factory.mktemp("set")
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:6]:
        text = " ".join(path.read_text(encoding="utf-8").split()).replace(". ", ".\n")
        (folder / path.name).write_text(text + "\n", encoding="utf-8")
    words = ["encode", "--input", folder, "--output", folder / "encoded", "--max_seq_len", 64, "--processes", 1,
             "--vocab_file", shared_data("vocab", "bert-base-uncased-vocab.txt"), "--shard_sequences", 25,
             "--eval_fraction", 0.2]  # fmt: skip
    assert corpus([str(word) for word in words]) == 0
    (made,) = (folder / "encoded").glob("sequences_*")
    return made


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A server on this machine."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def server(s3: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The set in a bucket of a server on this machine, and an empty cache."""
    monkeypatch.setenv("BERT_PYTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shard_cache, "FetchOptions", lambda **patience: AT_ONCE)
    monkeypatch.setattr(remote, "FetchOptions", lambda: AT_ONCE)
    opened = weakref.WeakSet()
    made = ShardCache.__init__
    monkeypatch.setattr(ShardCache, "__init__", lambda cache, *how: (made(cache, *how), opened.add(cache))[0])
    remote._listed.cache_clear()
    use_s3(monkeypatch, s3)
    with urlopen(Request(f"{s3}/moto-api/reset", b"", method="POST")):
        bucket(s3).create()
    for path in local.iterdir():
        bucket(s3).put_object(Key=f"set/{path.name}", Body=path.read_bytes())
    yield s3
    for cache in list(opened):
        cache.close()


@lru_cache
def bucket(endpoint: str) -> "boto3.resources.base.ServiceResource":
    return boto3.resource(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    ).Bucket("corpora")


def loader_of(name: str, **settings: object) -> TrainingLoader:
    config = DataConfig.model_validate({"input_dir": name, "global_batch_size": 32, "num_workers": 0, **settings})
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    assert corpora.vocabulary is not None
    policy = policy_for(config, corpora.vocabulary)
    return TrainingLoader(BatchMaker(corpora, corpora.vocabulary, policy, next_sentence=True), config)


def assert_same_updates(loader: TrainingLoader, other: TrainingLoader, count: int) -> None:
    def arrays(update: Update) -> list[list[int]]:
        return [array.tolist() for batch in update.micro_batches for array in batch if array is not None]

    for ours, theirs, _ in zip(loader.stream(0), other.stream(0), range(count), strict=False):
        assert arrays(ours) == arrays(theirs)


def fetched_shards(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/remote").glob("*/*/*.hdf5"))


def test_updates_are_those_of_a_local_copy_and_nothing_is_fetched_before(
    server: str, local: Path, tmp_path: Path
) -> None:
    loader = loader_of(URL, remote_prefetch=0)
    assert fetched_shards(tmp_path) == []
    assert loader.corpora.num_sequences == open_shards(local).num_sequences
    assert_same_updates(loader, loader_of(str(local)), 12)
    assert held_out_beside((URL, str(local))) == (URL, str(local))


def test_updates_survive_a_line_that_breaks(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = [Break(5000), Break(20000), Break(300), None, Break(40000), Break(1)]
    with wire(server, cuts, of=".hdf5") as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.url)
        loader = loader_of(URL, remote_prefetch=3)
        assert_same_updates(loader, loader_of(str(local)), 8)
        loader.corpora.close()
    for path in fetched_shards(tmp_path):
        assert path.read_bytes() == (local / path.name).read_bytes()


def test_the_cache_keeps_its_bound_with_a_window(
    server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [path.stat().st_size for path in local.glob("train_*.hdf5")]
    assert len(sizes) >= 6
    limit = 3 * max(sizes)
    monkeypatch.setenv("BERT_PYTORCH_CACHE_GIB", str(limit / 2**30))
    with pytest.raises(ConfigError, match=r"must be here at a time.*--shuffle_window 1"):
        loader_of(URL)
    loader, same = loader_of(URL, shuffle_window=1), loader_of(str(local), shuffle_window=1)
    seen = set()
    total = loader.corpora.num_sequences
    stream = zip(loader.stream(0), same.stream(0), strict=False)
    while True:
        ours, theirs = next(stream)
        for one, other in zip(ours.micro_batches, theirs.micro_batches, strict=True):
            assert np.array_equal(one.input_ids, other.input_ids)
        here = fetched_shards(tmp_path)
        assert sum(path.stat().st_size for path in here) <= limit
        seen |= {path.name for path in here}
        if ours.end_position > 2 * total:
            break
    loader.corpora.close()
    assert len(seen) == len(sizes)


def test_a_second_start_fetches_no_shard_again_and_ranks_share_them(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = door.read_s3

    def counted(url: str, start: int = 0, etag: str | None = None, **limits: float) -> object:
        asked.append(url)
        return read(url, start, etag, **limits)

    monkeypatch.setattr(door, "read_s3", counted)
    loaders = [loader_of(URL, remote_prefetch=2) for _ in range(2)]  # each with a cache of its own, as ranks have
    threads = [threading.Thread(target=loader.update_at, args=(0,)) for loader in loaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for loader in loaders:
        loader.corpora.close()
    shards = [url for url in asked if url.endswith(".hdf5")]
    assert shards
    assert len(shards) == len(set(shards))
    asked.clear()
    again = loader_of(URL)
    again.update_at(0)
    again.corpora.close()
    assert [url for url in asked if url.endswith(".hdf5")] == []


def test_another_object_is_refused_with_both_checksums(server: str, local: Path) -> None:
    content = bytearray((local / "train_0.hdf5").read_bytes())
    content[-40] ^= 1
    bucket(server).put_object(Key="set/train_0.hdf5", Body=bytes(content))
    loader = loader_of(URL, global_batch_size=512)
    with pytest.raises(
        DamagedShardError, match=r"train_0.hdf5: its SHA-256 is \w{64}, its manifest says \w{64}"
    ) as told:
        loader.update_at(0)
    assert told.value.path.name == "train_0.hdf5"
    loader.exclude([str(loader.corpora.name_of(told.value.path))])
    update = loader.update_at(0)
    assert 0 < sum(batch.num_sequences for batch in update.micro_batches) < 512
    loader.corpora.close()


def test_threads_end_and_a_failure_ahead_is_told_where_it_counts(server: str, local: Path) -> None:
    before = threading.active_count()
    bucket(server).Object("set/train_1.hdf5").delete()
    with pytest.raises(InputError, match=r"1 shard\(s\) of its manifest are missing: train_1.hdf5"):
        loader_of(URL)
    bucket(server).put_object(Key="set/train_1.hdf5", Body=(local / "train_1.hdf5").read_bytes())
    remote._listed.cache_clear()
    loader = loader_of(URL, remote_prefetch=4, global_batch_size=256)
    bucket(server).Object("set/train_1.hdf5").delete()
    with pytest.raises(InputError, match=r"train_1\.hdf5"):
        loader.update_at(0)
    loader.corpora.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("shards")] == []
    assert threading.active_count() <= before + 2  # the server's own


def test_a_set_without_a_manifest_is_fetched_whole(server: str, local: Path, tmp_path: Path) -> None:
    for path in local.glob("train_*.hdf5"):
        bucket(server).put_object(Key=f"foreign/{path.name}", Body=path.read_bytes())
    config = DataConfig(input_dir=("s3://corpora/foreign/",))
    found = open_corpora(config.input_dir, "train", config, open_shards(local).vocabulary, lowercase=True)
    indices = np.arange(0, found.num_sequences, 7)
    assert np.array_equal(found.sources[0].rows(indices).input_ids, open_shards(local).rows(indices).input_ids)
    assert len(fetched_shards(tmp_path)) == len(list(local.glob("train_*.hdf5")))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://corpora/none", "no files there"),
        ("s3://nobody/set", "no bucket 'nobody'"),
        ("s3://corpora", "more than one folder"),
    ],
)
def test_wrong_addresses_are_one_message(server: str, url: str, message: str) -> None:
    bucket(server).put_object(Key="other/train_0.hdf5", Body=b"x")
    with pytest.raises(InputError, match=message):
        loader_of(url)
