"""Run a download: fetch what a source's settings choose, unpack it, bring it into shape."""

from pathlib import Path

from bert_pytorch.downloads.source import DownloadConfig, Source
from bert_pytorch.downloads.unpacked import is_unpacked, unpack_download
from bert_pytorch.files import exclusive_lock, remove_partial_files
from bert_pytorch.remote.fetch import FetchOptions, fetch_all


def download(source: Source, config: DownloadConfig) -> Path:
    """Fetch and unpack the files of one source into `config.output` and return that folder.

    A second call finds its work done, one after a kill goes on.  Archives stay where they were fetched to; once
    unpacked they may be removed.

    Raises:
        TransferError: where a file cannot be had; says how to provide it by hand.
        InputError: for a file or folder there that is not the one wanted, a bad archive, a full disk.
    """
    folder = config.folder
    wanted = source.plan(config)
    missing = [item for item in wanted if not is_unpacked(item, folder, config.overwrite)]
    with exclusive_lock(folder, "downloads"):
        for parent in {(folder / item.unpack_to).parent for item in missing if item.unpack_to is not None}:
            remove_partial_files(parent)  # what a killed start has unpacked
    by_hand = {item.file.path for item in missing if not config.overwrite and (folder / item.file.path).exists()}
    options = FetchOptions(config.retries, config.timeout_seconds, overwrite=config.overwrite)
    paths = fetch_all([item.file for item in missing], folder, options)
    with exclusive_lock(folder, "downloads"):
        for item, path in zip(missing, paths, strict=True):
            if item.unpack_to is not None:
                unpack_download(item, path, folder, fetched=item.file.path not in by_hand)
        if source.finish is not None:
            source.finish(folder)
    return folder
