"""Small JSON answers over HTTP, with a secret that never reaches another server."""

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from bert_pytorch.remote.errors import NotThere, Refused, TransferError, TransferInterrupted
from bert_pytorch.remote.files import SecretHeader
from bert_pytorch.remote.http import check_http_url, check_redirect
from bert_pytorch.remote.http_errors import show_url, translated

_LARGEST = 64 << 20
_TIMEOUT_SECONDS = 30
_TRIES = 3


class JsonAnswer(NamedTuple):
    """One page."""

    value: Any
    next_url: str | None
    """The page after it, from the `Link` header (RFC 8288)."""


def get_json(url: str, secret: SecretHeader | None = None, pause_seconds: float = 1.0) -> JsonAnswer:
    """Fetch one page of JSON, trying three times where the connection breaks or the server is busy.

    Args:
        url: `http://` or `https://`.
        secret: sent to its own server only, not to where that one redirects.
        pause_seconds: before the second try, doubled before the third.

    Raises:
        NotThere: 404.  Refused: 401 or 403.  TransferInterrupted: after the last try.
        TransferError: for other answers, one of over 64 MiB, what is no JSON, a certificate that is not trusted, and a
            redirect out of https.
    """
    check_http_url(url)
    for attempt in range(1, _TRIES + 1):
        try:
            return _get_once(url, secret)
        except TransferInterrupted:
            if attempt == _TRIES:
                raise
            time.sleep(pause_seconds * attempt)
    raise AssertionError("unreachable")


def _get_once(url: str, secret: SecretHeader | None) -> JsonAnswer:
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "bert_pytorch"})  # noqa: S310
    for name, value in (secret.headers_for(url) if secret else {}).items():
        request.add_unredirected_header(name, value)
    try:
        opener = urllib.request.build_opener(_Redirects(url, secret))
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            body, link = answer.read(_LARGEST + 1), answer.headers.get("Link", "")
    except urllib.error.HTTPError as error:
        with error:
            raise _error_of(url, error.code, error.headers) from None
    except (http.client.InvalidURL, ValueError) as error:
        raise TransferError(f"{url}: no web address, or redirected to none ({error}).") from error
    except (OSError, http.client.HTTPException) as error:
        with translated(show_url(url)):
            raise error
    if len(body) > _LARGEST:
        raise TransferError(
            f"{url}: answers more than {_LARGEST >> 20} MiB where a list was wanted. Check the address."
        )
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TransferError(
            f"{url}: the answer is no JSON. Check the address (HF_ENDPOINT, a proxy's page?)."
        ) from error
    following = re.search(r'<([^<>]*)>\s*;\s*rel="?next"?', link)
    return JsonAnswer(value, following and following[1])


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as `read_http` does, asking at each whether its server may see the secret."""

    def __init__(self, url: str, secret: SecretHeader | None) -> None:
        self._url, self._secret = url, secret

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        check_redirect(self._url, req.full_url, newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and self._secret is not None:
            for name, value in self._secret.headers_for(newurl).items():
                following.add_unredirected_header(name, value)
        return following


def _error_of(url: str, status: int, headers: Any) -> TransferError:
    told = " ".join(filter(None, (headers.get("X-Error-Code"), headers.get("X-Error-Message"))))
    told = "".join(character for character in told if character.isprintable())[:200]
    said = f"{url}: the server answers {status}" + (f" ({told})." if told else ".")
    if status == 404:
        return NotThere(said)
    if status in (401, 403):
        return Refused(said)
    return (TransferInterrupted if status >= 500 or status in (408, 429) else TransferError)(said)
