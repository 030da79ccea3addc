"""What is to be fetched: one file, where it lies and how its copy is recognised as whole."""

from typing import NamedTuple


class RemoteFile(NamedTuple):
    """One file to fetch."""

    urls: tuple[str, ...]
    """Mirrors with equal content, tried in order: `https://…`, `http://…` or `s3://bucket/key`."""
    path: str
    """Where it goes below the output folder, relative, with forward slashes."""
    size: int | None = None
    """Bytes, where known beforehand."""
    checksum: str | None = None
    """`sha256:…`, `sha1:…` or `md5:…` in hexadecimal, where published."""
