"""Sets of shards in `s3://`: told by their manifest, copied shard by shard into the bounded local cache."""

import hashlib
import logging
import os
import shutil
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bert_pytorch.data.shard_cache import RemoteShard, ShardCache, bytes_at_once
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.records import Vocabulary
from bert_pytorch.remote.fetch import FetchOptions, fetch_all
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.shards.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, REMOTE, alone, cache_folder, limit_bytes
from bert_pytorch.shards.layouts import MANIFEST, UNFINISHED, is_held_out
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
    patience = options or FetchOptions()
    around = _fetch_small(url, files, folders[0], patience)
    if (around / UNFINISHED).exists():
        raise InputError(f"{url}: this set is not finished (it has {UNFINISHED}). Upload it when its build is done.")
    _refuse_too_large(url, [file.size or 0 for file in chosen], shuffle_window)
    manifest = read_manifest(around)
    if manifest is None:
        folder = _fetch_all_shards(url, around, chosen, threads, patience)
        return open_shards(
            folder, split, vocabulary, otherwise_lowercase=otherwise_lowercase, on_bad_shard=on_bad_shard
        )
    folder = around.parent / f"{around.name}-{manifest.fingerprint[:12]}"
    listed = {PurePosixPath(file.path).name: file for file in chosen}
    records = [record for record in manifest.shards if is_held_out(record.name) == (split == "eval")]
    missing = [record.name for record in records if record.name not in listed]
    if missing:
        raise InputError(
            f"{url}: {len(missing)} shard(s) of its manifest are missing: {', '.join(missing[:5])}. Upload them."
        )
    entries = sorted(entries_of(manifest, folder, records), key=lambda entry: natural_order(entry.path))
    refuse_mixture(url, entries)
    cache = ShardCache(
        folder,
        {
            record.name: RemoteShard(
                listed[record.name].urls[0], record.bytes or listed[record.name].size or 0, record.sha256
            )
            for record in records
        },
        threads,
        options,
    )
    found = vocabulary or read_vocabulary(around, manifest.lowercase)
    refuse_other_vocabulary(entries, found, "the one given" if vocabulary else url)
    return ShardSet(entries, found, url, files=cache)


@lru_cache(maxsize=16)
def _listing(url: str) -> tuple[RemoteFile, ...]:
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


def _fetch_all_shards(url: str, around: Path, chosen: list[RemoteFile], threads: int, options: FetchOptions) -> Path:
    """Fetch a set that has no manifest, without which nobody knows how many rows it has."""
    total = sum(file.size or 0 for file in chosen)
    logger.info("%s: no %s there, so all %d shards are fetched now: %.2f GB", url, MANIFEST, len(chosen), total / 1e9)
    shards = {PurePosixPath(file.path).name: RemoteShard(file.urls[0], file.size or 0, None) for file in chosen}
    cache = ShardCache(around, shards, threads, options)
    try:
        cache.expect([around / name for name in shards])
        for name in shards:
            cache.locate(around / name)
    finally:
        cache.close()
    return around


def _refuse_too_large(url: str, sizes: list[int], window: int) -> None:
    needed, allowed = bytes_at_once(sizes, window), limit_bytes()
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    here = sum(file.stat().st_size for file in (folder / REMOTE).glob("*/*.hdf5"))
    free = shutil.disk_usage(folder).free + here
    if needed <= min(allowed, free):
        return
    limit = f"{allowed / 2**30:.2f} GiB (${LIMIT_VARIABLE})" if allowed <= free else f"{free / 2**30:.2f} GiB free"
    most = max(1, int(min(allowed, free) // (2 * max(sizes))))
    raise ConfigError(
        url,
        [
            f"{needed / 2**30:.2f} GiB of it must be here at a time, the cache {folder} may hold {limit}. Raise "
            f"${LIMIT_VARIABLE}, name another folder by ${FOLDER_VARIABLE}, or draw samples from fewer shards at a "
            f"time: --shuffle_window {most}"
        ],
    )
