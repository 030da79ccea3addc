"""What is to be fetched: one file, where it lies and how its copy is recognised as whole."""

from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class SecretHeader:
    """A header that says who asks; only the server that the secret belongs to ever sees it."""

    endpoint: str
    """Any URL of that server: scheme, host and port count."""
    name: str
    """Such as `Authorization`."""
    value: str = field(repr=False)

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the header for a request to `url`, nothing for another server: ask again after each redirect."""
        try:
            same = _origin(url) == _origin(self.endpoint)
        except ValueError:  # no address at all, such as a redirect to port 99999
            same = False
        return {self.name: self.value} if same else {}


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
    secret_header: SecretHeader | None = None
    """Sent where `secret_header.headers_for(url)` says so, and never written down."""
    etag: str | None = None
    """Changes with the content, where a listing says it; no checksum."""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
