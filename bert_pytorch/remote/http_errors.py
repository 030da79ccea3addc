"""What went wrong with a request, in our words and kinds."""

import contextlib
import email.utils
import http.client
import re
import socket
import ssl
import time
import urllib.error
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

from bert_pytorch.remote.errors import NotThere, Refused, TransferError, TransferInterrupted

_BUSY = (408, 425, 429)


def show_url(url: str) -> str:
    """Return a URL without what may be secret: name and password, and the values after `?`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))


def refusal(answer: http.client.HTTPResponse, shown: str) -> TransferError:
    """Return the error for an answer that brings no file."""
    status, said = answer.status, f"the server answers {answer.status} {answer.reason}".rstrip()
    if status in (404, 410):
        return NotThere(f"{shown}: there is no such file ({said}). Check the address.")
    if status in (401, 403, 407):
        return Refused(
            f"{shown}: access denied ({said}). Check what the server wants: an account, a licence, a mirror."
        )
    if status in _BUSY or status >= 500:
        error = TransferInterrupted(f"{shown}: {said}. Start again later.")
        error.retry_after_seconds = _seconds(answer.headers.get("Retry-After"))
        return error
    return TransferError(f"{shown}: {said}. Check the address.")


def whole_number(text: str | None) -> int | None:
    """Read a header that holds digits only, at most as many as any length in bytes has."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None


def _seconds(retry_after: str | None) -> float | None:
    """Read `Retry-After`: seconds, or a date (RFC 9110 §10.2.3)."""
    if retry_after is None:
        return None
    if re.fullmatch("[0-9]+", retry_after.strip()):
        return float(retry_after)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    return None


@contextlib.contextmanager
def translated(shown: str) -> Iterator[None]:
    """Turn the client's errors into ours; a file's own errors must not come through here."""
    try:
        yield
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, Exception) else error
        raise _network_error(shown, reason) from error
    except (http.client.InvalidURL, UnicodeError) as error:
        raise TransferError(f"{shown}: no usable web address ({error}).") from error
    except (OSError, http.client.HTTPException) as error:
        raise _network_error(shown, error) from error


def _network_error(shown: str, error: Exception) -> TransferError:
    host = urlsplit(shown).hostname
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "Check the clock, or name your network's certificates in SSL_CERT_FILE."
        return TransferError(f"{shown}: the certificate is not trusted ({error.verify_message}). {advice}")
    if isinstance(error, socket.gaierror):
        told = f"{shown}: no such host {host} (DNS: {error.strerror})."
        return TransferInterrupted(told) if error.errno == socket.EAI_AGAIN else TransferError(told)
    if isinstance(error, TimeoutError):
        return TransferInterrupted(f"{shown}: no answer in time.")
    if isinstance(error, ConnectionRefusedError):
        return TransferInterrupted(f"{shown}: {host} refuses the connection.")
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return TransferInterrupted(f"{shown}: the connection broke ({said}).")
