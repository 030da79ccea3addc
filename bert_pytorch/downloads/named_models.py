"""What `--init_checkpoint` and `--teacher` name: a file, a folder, or a hub's model, fetched once into the cache."""

import os
import re
from pathlib import Path

from bert_pytorch.downloads.anywhere import HUGGINGFACE_BERT, HubModelConfig
from bert_pytorch.downloads.download import download
from bert_pytorch.errors import InputError
from bert_pytorch.remote.errors import TransferError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
WHOLE = ".whole"
"""A file by which a folder of the cache is known to be complete."""


def local_source(source: Path) -> Path:
    """Return a source as it is, or the folder into which the hub's model of that name was fetched.

    A name of the hub is `owner/name` where nothing lies here, not even a folder `owner`.

    Raises:
        InputError: if it cannot be fetched; says how to fetch it elsewhere.
    """
    name = str(source)
    if not HUB_NAME.fullmatch(name) or source.exists() or source.parent.exists() or source.suffix in (".pt", ".bin"):
        return source
    folder = _cache() / name.replace("/", "--")
    if (folder / WHOLE).is_file():
        return folder
    try:
        if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            raise TransferError("HF_HUB_OFFLINE is set")
        download(HUGGINGFACE_BERT, HubModelConfig(name=name, output=folder, retries=1, timeout_seconds=10))
    except TransferError as error:
        reason = str(error).splitlines()[0].rstrip(":.")
        raise InputError(
            f"{name}: there is no such file or folder, and the model of that name on the Hugging Face hub cannot be "
            f"fetched ({reason}). Fetch it where there is a network, and name the folder: python -m "
            f"bert_pytorch.corpus download {HUGGINGFACE_BERT.name} --name {name} --output DIR"
        ) from None
    (folder / WHOLE).touch()
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bert_pytorch" / "models"
