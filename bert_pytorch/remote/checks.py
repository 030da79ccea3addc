"""Whether a file is the one wanted: its size and published checksum."""

import hashlib
from pathlib import Path

from bert_pytorch.remote.files import RemoteFile

_NAMES = {"sha256": "SHA-256", "sha1": "SHA-1", "md5": "MD5"}


def problem_with(file: RemoteFile, path: Path) -> str | None:
    """Return how the file at `path` differs from the one wanted, or None; reads it once if a checksum is known."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size:,} bytes, wanted {file.size:,}"
    if file.checksum is None:
        return None
    kind, _, wanted = file.checksum.partition(":")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    return None if found == wanted.lower() else f"its {_NAMES.get(kind, kind)} is {found}, wanted {wanted}"


def describe_checksum(file: RemoteFile) -> str:
    """Say what a whole file was compared with."""
    if file.checksum is not None:
        return f"{_NAMES.get(file.checksum.partition(':')[0], file.checksum)} as published"
    return "size as published, no checksum is known" if file.size is not None else "no checksum is known"
