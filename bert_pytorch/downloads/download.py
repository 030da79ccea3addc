"""Run a download: fetch what a source's settings choose, unpack it, bring it into shape."""

import logging
import shutil
from pathlib import Path

from bert_pytorch.downloads.source import Download, DownloadConfig, Source
from bert_pytorch.files import exclusive_lock
from bert_pytorch.remote.archives import unpack
from bert_pytorch.remote.fetch import FetchOptions, fetch_all

logger = logging.getLogger(__name__)


def download(source: Source, config: DownloadConfig) -> Path:
    """Fetch and unpack the files of one source into `config.output` and return that folder.

    A second call finds its work done, one after a kill goes on.  Archives stay where they were fetched to; once
    unpacked they may be removed.

    Raises:
        TransferError: where a file cannot be had; says how to provide it by hand.
        InputError: for a file there that is not the one wanted, a bad archive, a full disk.
    """
    folder = config.folder
    wanted = source.plan(config)
    missing = [item for item in wanted if config.overwrite or not _is_unpacked(item, folder)]
    options = FetchOptions(config.retries, config.timeout_seconds, overwrite=config.overwrite)
    paths = fetch_all([item.file for item in missing], folder, options)
    with exclusive_lock(folder, "downloads"):
        for item, path in zip(missing, paths, strict=True):
            if item.unpack_to is not None:
                _unpack(path, folder / item.unpack_to, item, config.overwrite)
        if source.finish is not None:
            source.finish(folder)
    return folder


def _is_unpacked(item: Download, folder: Path) -> bool:
    done = item.unpack_to is not None and (folder / item.unpack_to).is_dir()
    if done:
        logger.info("%s: there already", folder / str(item.unpack_to))
    return done


def _unpack(archive: Path, folder: Path, item: Download, overwrite: bool) -> None:
    if overwrite and folder.is_dir():
        shutil.rmtree(folder)
    unpack(archive, folder, item.contents)
    logger.info("%s: unpacked", folder)
