"""Files over HTTP, read from any byte on; the standard library's client, which knows proxies and certificates.

`requests` would come with four more packages and still leave ranges, time limits and length checks to us.
"""

import base64
import contextlib
import http.client
import re
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from bert_pytorch import __version__
from bert_pytorch.errors import InputError
from bert_pytorch.remote.errors import StartOver, TransferError, TransferInterrupted
from bert_pytorch.remote.files import SecretHeader
from bert_pytorch.remote.http_errors import refusal, show_url, translated, whole_number

MOST_REDIRECTS = 5
_CHUNK = 1 << 18
_REDIRECTS = (301, 302, 303, 307, 308)
_TEXT_LIMIT = 16 << 20


class HttpInfo(NamedTuple):
    """What a server says of a file."""

    size: int | None
    """Bytes of the whole file, wherever reading began; None where the server does not say."""
    etag: str | None
    """What `If-Range` takes: a strong ETag, else the time of the last change; None where the server gives neither."""


def read_http(
    url: str,
    start: int = 0,
    etag: str | None = None,
    *,
    secret: SecretHeader | None = None,
    timeout_seconds: float = 30.0,
    web_page: bool = False,
) -> tuple[HttpInfo, Iterator[bytes]]:
    """Open a file for reading from byte `start` on; nothing is retried here.

    Args:
        url: `https://…` or `http://…`; a name and password in it are sent to that server only.
        start: the first byte wanted; at the file's end there are no chunks.
        etag: of the earlier reads that this one continues (`HttpInfo.etag`); None continues whatever is there now.
        secret: a header for its own server; redirects to another one go without it.
        timeout_seconds: how long to wait for a connection, and for each piece of the answer.
        web_page: whether HTML is wanted; otherwise it is taken for a message that stands in the file's place, as
            captive portals and some servers send it with status 200.

    Returns:
        What the file is, and its bytes in chunks of at most 256 KiB.  Iterating raises as this function does.

    Raises:
        StartOver: the file changed, ends before `start`, or the server does not send parts.
        TransferInterrupted: try again; also from the chunks, where the connection breaks or ends early.
        NotThere: 404 or 410.  Refused: 401, 403 or 407.
        TransferError: other refusals, too many redirects or one from https to http, no trusted connection.
        InputError: no http(s) address.
    """
    check_http_url(url)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if etag is not None:
            headers["If-Range"] = etag
    shown = show_url(url)
    with translated(shown):
        answer = _open(url, headers, secret, timeout_seconds)
    try:
        info = _info(answer, shown, start, etag)
        _check_kind(answer, shown, web_page)
    except BaseException:
        answer.close()
        raise
    left = None if info.size is None else info.size - start
    return info, _chunks(answer, shown, left)


def read_text(url: str, *, secret: SecretHeader | None = None, timeout_seconds: float = 30.0) -> str:
    """Return a small UTF-8 document, such as a list of checksums; errors as `read_http`'s, and over 16 MiB one more."""
    _, chunks = read_http(url, secret=secret, timeout_seconds=timeout_seconds, web_page=True)
    text = bytearray()
    for chunk in chunks:
        text += chunk
        if len(text) > _TEXT_LIMIT:
            raise TransferError(f"{show_url(url)}: over {_TEXT_LIMIT >> 20} MiB where a short text is wanted.")
    return text.decode("utf-8", errors="replace")


def check_http_url(url: str) -> None:
    """Raise InputError unless `url` is an http(s) address with a host."""
    if not is_http_url(url):
        raise InputError(f"{url.rpartition('@')[2]}: no address to fetch from; wanted https://…, http://… or s3://….")


def is_http_url(url: str) -> bool:
    """Tell whether `url` is an http(s) address with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def check_redirect(url: str, address: str, target: str) -> None:
    """Refuse to go on from `address` to `target`, absolute, where `url` is what was asked for.

    Raises:
        TransferError: from https to http, and to what is no web address.
    """
    if not is_http_url(target):
        raise TransferError(f"{show_url(url)}: redirects to {show_url(target)}, which is no web address.")
    if urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http":
        raise TransferError(
            f"{show_url(url)}: refused, since it redirects from https to http ({show_url(target)}), where anyone "
            "on the way could change it. Give a mirror that stays on https."
        )


def _open(url: str, headers: dict[str, str], secret: SecretHeader | None, timeout: float) -> http.client.HTTPResponse:
    """Request `url`, following redirects by hand, so that each one is checked and secrets stay with their server."""
    address, own_secret = _without_password(url)
    secrets = [found for found in (own_secret, secret) if found is not None]
    for _ in range(MOST_REDIRECTS + 1):
        told = {name: value for found in secrets for name, value in found.headers_for(address).items()}
        request = urllib.request.Request(address, headers=headers | told)  # noqa: S310 checked above
        request.add_header("User-Agent", f"bert_pytorch/{__version__} (corpus download)")
        answer: http.client.HTTPResponse = _opener().open(request, timeout=timeout)
        if answer.status not in _REDIRECTS:
            return answer
        target = answer.headers.get("Location", "")
        answer.close()
        with contextlib.suppress(ValueError):
            target = urljoin(address, target)
        check_redirect(url, address, target)
        address = _quoted(target)
    raise TransferError(f"{show_url(url)}: redirects more than {MOST_REDIRECTS} times. Give another address.")


def _opener() -> urllib.request.OpenerDirector:
    """Return a client for http and https alone: urllib's usual one opens file: and ftp: too, and follows by itself."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
        opener.add_handler(handler())
    return opener


def _without_password(url: str) -> tuple[str, SecretHeader | None]:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    address = _quoted(urlunsplit((parts.scheme, host, parts.path or "/", parts.query, "")))
    if not at:
        return address, None
    token = base64.b64encode(unquote(user).encode()).decode()
    return address, SecretHeader(address, "Authorization", f"Basic {token}")


def _quoted(url: str) -> str:
    """Percent-encode what may not stand in a request line, and leave the rest as it is."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    keep = "/%:@!$&'()*+,;=~-._?"
    return urlunsplit((parts.scheme, host, quote(parts.path, safe=keep), quote(parts.query, safe=keep), ""))


def _info(answer: http.client.HTTPResponse, shown: str, start: int, etag: str | None) -> HttpInfo:
    """Read the answer's head.

    Raises:
        TransferError: of the kind that the status asks for.
    """
    length = whole_number(answer.headers.get("Content-Length"))
    if length is None and "Content-Length" in answer.headers:
        raise TransferError(f"{shown}: the server sends a length that is no number of bytes. Try a mirror.")
    found = HttpInfo(length, _validator(answer))
    if answer.status == 200:
        if start:
            raise StartOver(f"{shown}: it changed, or the server does not send parts of files. Fetch it anew.")
        return found
    span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
    whole = whole_number(span.group(2)) if span else None
    if answer.status == 206 and start:
        if span is None or span.group(1) != str(start) or (whole is None and span.group(2) != "*"):
            raise StartOver(f"{shown}: the server sends another part than the one asked for. Fetch it anew.")
        if etag is not None and found.etag is not None and found.etag != etag:
            raise StartOver(f"{shown}: it changed while it was fetched. Fetch it anew.")
        return HttpInfo(whole if whole is not None or length is None else start + length, found.etag or etag)
    if answer.status == 416 and start:
        if whole != start:
            raise StartOver(f"{shown}: it has {whole} bytes, {start} were fetched of it. Fetch it anew.")
        return HttpInfo(start, found.etag or etag)
    raise refusal(answer, shown)


def _check_kind(answer: http.client.HTTPResponse, shown: str, web_page: bool) -> None:
    """Refuse what would not be the file's own bytes."""
    path = urlsplit(shown).path
    if not web_page and answer.headers.get_content_type() == "text/html" and not re.search(r"\.html?$", path):
        raise TransferError(f"{shown}: a web page comes where a file is wanted. Open it in a browser to see.")
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding != "identity" and not re.search(r"\.(t?gz|bz2|xz|zst|zip)$", path):  # there it says what the file is
        raise TransferError(f"{shown}: the server sends it compressed ({encoding}), unasked. Try a mirror.")


def _validator(answer: http.client.HTTPResponse) -> str | None:
    """RFC 9110 §13.1.5: a weak ETag cannot continue a file."""
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _chunks(answer: http.client.HTTPResponse, shown: str, left: int | None) -> Iterator[bytes]:
    with translated(shown), contextlib.closing(answer):
        while left is None or left > 0:
            chunk = answer.read1(_CHUNK if left is None else min(_CHUNK, left))
            if not chunk:
                break
            left = None if left is None else left - len(chunk)
            yield chunk
    if left:
        raise TransferInterrupted(f"{shown}: the connection ended {left:,} bytes before the file did.")
