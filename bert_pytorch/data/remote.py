"""Sets of shards in `s3://`: told by their manifest, copied shard by shard into the bounded local cache."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bert_pytorch.data.shard_cache import RemoteShard, ShardCache
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.records import Vocabulary
from bert_pytorch.remote.fetch import FetchOptions, fetch_all
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, REMOTE, cache_folder, limit_bytes
from bert_pytorch.shards.layouts import MANIFEST, UNFINISHED, is_held_out
from bert_pytorch.shards.locks import alone
from bert_pytorch.shards.manifest import read_manifest
from bert_pytorch.shards.opening import OnBadShard, Split, entries_of, natural_order, open_shards, refuse_mixture
from bert_pytorch.shards.shard_set import ShardSet
from bert_pytorch.shards.vocabularies import refuse_other_vocabulary
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_FILES, read_vocabulary

logger = logging.getLogger(__name__)

SCHEME = "s3://"
_SMALL = {MANIFEST, UNFINISHED, TOKENIZER_JSON, *VOCABULARY_FILES, "merges.txt", "tokenizer_config.json"}


def is_remote(name: str) -> bool:
    """Whether a name is an address in S3."""
    return name.startswith(SCHEME)


def has_held_out(url: str) -> bool:
    """Whether a remote set has a held-out part."""
    return any(is_held_out(PurePosixPath(file.path).name) for file in _shards_in(_listing(url)))


def open_remote_shards(
    url: str,
    split: Split,
    vocabulary: Vocabulary | None = None,
    *,
    otherwise_lowercase: bool = True,
    on_bad_shard: OnBadShard = "stop",
    shuffle_window: int = 0,
    threads: int = 4,
    options: FetchOptions | None = None,
) -> ShardSet:
    """Open the shards of one part below `s3://bucket/prefix`.

    Of a set with a manifest nothing but that and the vocabulary is fetched now; of one without, all shards.

    Args:
        url: of the set.
        split: which part.
        vocabulary: used instead of the one beside the shards.
        otherwise_lowercase: casing of a vocab.txt that does not tell its own.
        on_bad_shard: as `open_shards` takes it.
        shuffle_window: shards that samples are drawn from at a time; 0 draws from all.
        threads: that fetch shards ahead.
        options: how patiently files are fetched.

    Raises:
        InputError: if there are none, the set is not finished, or it does not belong together.
        ConfigError: if what must be here at a time is more than the cache may hold.
    """
    files = _listing(url)
    chosen = [file for file in _shards_in(files) if is_held_out(PurePosixPath(file.path).name) == (split == "eval")]
    if not chosen:
        raise InputError(
            f"{url}: no {'held-out ' if split == 'eval' else ''}shard (*.hdf5) there. Name a set that has."
        )
    folders = sorted({str(PurePosixPath(file.path).parent) for file in chosen})
    if len(folders) > 1:
        listing = "".join(f"\n  - {url.rstrip('/')}/{folder}" for folder in folders)
        raise InputError(f"{url}: shards in more than one folder; name one of them:{listing}")
    around = _fetch_small(url, files, folders[0], options or FetchOptions())
    if (around / UNFINISHED).exists():
        raise InputError(f"{url}: this set is not finished (it has {UNFINISHED}). Upload it when its build is done.")
    listed = {PurePosixPath(file.path).name: file for file in chosen}
    manifest = read_manifest(around)
    if manifest is None:
        cache = _fetch_all_shards(url, around, listed, threads, options)
        try:
            return open_shards(
                cache.folder, split, vocabulary, otherwise_lowercase=otherwise_lowercase, on_bad_shard=on_bad_shard,
                files=cache,
            )  # fmt: skip
        except BaseException:
            cache.close()
            raise
    records = [record for record in manifest.shards if is_held_out(record.name) == (split == "eval")]
    missing = [record.name for record in records if record.name not in listed]
    if missing:
        raise InputError(
            f"{url}: {len(missing)} shard(s) of its manifest are missing: {', '.join(missing[:5])}. Upload them."
        )
    shards = {
        record.name: RemoteShard(
            listed[record.name].urls[0], record.bytes or listed[record.name].size or 0, record.sha256.lower()
        )
        for record in records
    }
    folder = around / _identity({name: (shard.size, shard.sha256) for name, shard in shards.items()})
    entries = sorted(entries_of(manifest, folder, records), key=lambda entry: natural_order(entry.path))
    refuse_mixture(url, entries)
    found = vocabulary or read_vocabulary(around, manifest.lowercase)
    refuse_other_vocabulary(entries, found, "the one given" if vocabulary else url)
    cache = ShardCache(folder, shards, shuffle_window, threads, options)
    _refuse_too_large(url, cache, shuffle_window)
    return ShardSet(entries, found, url, files=cache)


def _identity(contents: Mapping[str, tuple[int, str | None]]) -> str:
    """Return a folder's name for shards of such sizes and checksums or entity tags: other contents, another folder."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def _listing(url: str) -> tuple[RemoteFile, ...]:
    return _listed(url, os.environ.get("AWS_ENDPOINT_URL"))


@lru_cache(maxsize=16)
def _listed(url: str, endpoint: str | None) -> tuple[RemoteFile, ...]:
    from bert_pytorch.remote.s3 import list_s3  # the door to boto3, which is optional

    # A folder synchronised as it is brings locks and logs along.
    return tuple(list_s3(url, lambda path: path.endswith(".hdf5") or PurePosixPath(path).name in _SMALL))


def _shards_in(files: tuple[RemoteFile, ...]) -> list[RemoteFile]:
    named = [file for file in files if PurePosixPath(file.path).suffix == ".hdf5"]
    return [file for file in named if not PurePosixPath(file.path).name.startswith(".")]


def _fetch_small(url: str, files: tuple[RemoteFile, ...], folder: str, options: FetchOptions) -> Path:
    """Fetch manifest and vocabulary anew; returns the folder they are in."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    key = hashlib.sha256(f"{endpoint}\0{url.rstrip('/')}\0{folder}".encode()).hexdigest()[:24]
    around = cache_folder() / REMOTE / key
    small = [
        file._replace(path=PurePosixPath(file.path).name)
        for file in files
        if str(PurePosixPath(file.path).parent) == folder and PurePosixPath(file.path).name in _SMALL
    ]
    with alone(around):  # the ranks of a node fetch one after the other
        for path in around.glob("*"):
            if path.name in _SMALL and path.name not in {file.path for file in small}:
                path.unlink()
        around.mkdir(parents=True, exist_ok=True)
        if small:
            fetch_all(small, around, options._replace(overwrite=True))
    return around


def _fetch_all_shards(
    url: str, around: Path, listed: Mapping[str, RemoteFile], threads: int, options: FetchOptions | None
) -> ShardCache:
    """Fetch a set that has no manifest, without which nobody knows how many rows it has."""
    folder = around / _identity({name: (file.size or 0, file.etag) for name, file in listed.items()})
    shards = {name: RemoteShard(file.urls[0], file.size or 0, None) for name, file in listed.items()}
    cache = ShardCache(folder, shards, 0, threads, options)
    _refuse_too_large(url, cache, None)
    total = cache.room.size / 1e9
    logger.info("%s: no %s there, so all %d shards are fetched now: %.2f GB", url, MANIFEST, len(listed), total)
    try:
        cache.expect([folder / name for name in shards])
        for name in shards:
            cache.locate(folder / name)
    except BaseException:
        cache.close()
        raise
    return cache


def _refuse_too_large(url: str, cache: ShardCache, window: int | None) -> None:
    """Close a cache of which more must be here at a time than may, all of it where `window` is None.

    Raises:
        ConfigError: if it is more than the folder or the disk can hold beside the other sets that are open.
    """
    needed, others, folder = cache.room.size, cache.room.beside, cache_folder()
    here = 0
    for file in (folder / REMOTE).glob("*/*/*.hdf5"):
        with contextlib.suppress(FileNotFoundError):  # other processes make room
            here += file.stat().st_size
    allowed, free = limit_bytes(), shutil.disk_usage(folder).free + here
    if needed + others <= min(allowed, free):
        return
    cache.close()
    limit = f"{allowed / 2**30:.2f} GiB (${LIMIT_VARIABLE})" if allowed <= free else f"{free / 2**30:.2f} GiB free"
    beside = f", beside {others / 2**30:.2f} GiB of other sets that this or other processes read" if others else ""
    advice = f"Raise ${LIMIT_VARIABLE}, or name another folder by ${FOLDER_VARIABLE}"
    most = int((min(allowed, free) - others) // (2 * cache.largest))
    if window is None:
        advice += f"; upload a set with its {MANIFEST} to need only a part at a time."
    elif most >= 1:
        advice += f", or draw samples from fewer shards at a time: --shuffle_window {most}."
    else:
        advice += "."
    gib = f"{needed / 2**30:.2f} GiB"
    raise ConfigError(
        url, [f"{gib} of it must be here at a time{beside}, the cache {folder} may hold {limit}. {advice}"]
    )
