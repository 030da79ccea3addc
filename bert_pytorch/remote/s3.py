"""S3 and what speaks its protocol, read through boto3: the one door to it.

Endpoint, region, profile and credentials are boto3's own (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, `~/.aws`, instance roles);
without credentials requests are anonymous, as public buckets want them.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from bert_pytorch.errors import InputError, MissingDependencyError
from bert_pytorch.remote.errors import NotThere, Refused, StartOver, TransferError, TransferInterrupted
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.paths import refuse_unsafe_paths

_CHUNK = 1 << 16
"""Bytes; what has arrived of a chunk is lost where the line breaks, which on a slow one must not be all."""
_TIMEOUT_SECONDS = 30.0
_ADVICE = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, to credentials that may read it."
_BAD_CREDENTIALS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}
"""Answers with status 400 that are about who asks; the others have 401 or 403."""
_BUSY = {"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"}


class _Object(NamedTuple):
    """One entry of a listing."""

    key: str
    size: int
    etag: str


class S3Info(NamedTuple):
    """What S3 says of an object."""

    size: int
    """Bytes of the whole object, wherever reading began."""
    etag: str
    """Changes with the content; as S3 gives it, in quotes.  No checksum: it is an MD5 of some objects only."""


def list_s3(prefix_url: str, wanted: Callable[[str], bool] = lambda path: True) -> list[RemoteFile]:
    """Return the objects below a prefix, sorted by path.

    A prefix is a folder: `s3://bucket/data` is what lies below `data/`, never `data2/…`; where nothing does, the
    one object of that very name.  Empty objects whose names end in `/` are folder markers of other tools and left out.

    Args:
        prefix_url: `s3://bucket`, `s3://bucket/prefix` or `s3://bucket/key`; taken literally, `%` and `?` too.
        wanted: whether an object is, by its path below the prefix; the others may have any name.

    Raises:
        InputError: for names that would leave the output folder.
        NotThere: no such bucket, or nothing there.
        Refused: access denied.
        TransferInterrupted: the connection broke, also after botocore's own tries.
    """
    bucket, prefix = _bucket_and_key(prefix_url)
    folder = prefix if not prefix or prefix.endswith("/") else prefix + "/"
    found = {each.key: each for each in _objects(prefix_url, bucket, folder) if each.size or not each.key.endswith("/")}
    if not found and prefix != folder:
        found = {each.key: each for each in _objects(prefix_url, bucket, prefix, 1) if each.key == prefix}
        folder = prefix[: prefix.rfind("/") + 1]
    if not found:
        raise NotThere(f"{prefix_url}: no files there. Check the prefix, for example with `aws s3 ls {prefix_url}/`.")
    files = [
        RemoteFile((f"s3://{bucket}/{key}",), key.removeprefix(folder), each.size, etag=each.etag)
        for key, each in sorted(found.items())
        if wanted(key.removeprefix(folder))
    ]
    refuse_unsafe_paths([file.path for file in files], prefix_url)
    return files


def read_s3(
    url: str, start: int = 0, etag: str | None = None, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> tuple[S3Info, Iterator[bytes]]:
    """Open an object for reading from byte `start` on.

    Nothing of a broken stream is retried here: the caller knows what it has and asks for the rest.  Read from 0, an
    object that S3 keeps a checksum of is verified at its end.

    Args:
        url: `s3://bucket/key`, the key taken literally.
        start: the first byte wanted; at the object's end there are no chunks.
        etag: of the earlier reads that this one continues.
        timeout_seconds: how long to wait for a connection, and for each piece of the answer; botocore asks up to three
            times for an answer's beginning.

    Returns:
        What the object is, and its bytes in chunks of at most 64 KiB.  Iterating raises as this function does.

    Raises:
        StartOver: the object is not the one with `etag`, ends before `start`, or fails its checksum.
        TransferInterrupted: try again; also from the chunks, where the connection breaks.
        NotThere: no such bucket or key.
        Refused: access denied.
    """
    bucket, key = _bucket_and_key(url)
    if not key:
        raise InputError(f"{url}: names a bucket; wanted one object, s3://bucket/key.")
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if start:
        request["Range"] = f"bytes={start}-"
    if etag is not None:
        request["IfMatch"] = etag
    with _translated(url):
        client = _client(timeout_seconds)
        answer = _get_object(client, request)
        if answer is None:
            return _end_of(client, url, request, start), iter(())
    info = S3Info(_whole_size(answer, start, url), answer["ETag"])
    return info, _chunks(url, answer["Body"])


def _objects(url: str, bucket: str, prefix: str, limit: int | None = None) -> Iterator[_Object]:
    with _translated(url):
        pages = _client().get_paginator("list_objects_v2")
        for page in pages.paginate(
            Bucket=bucket, Prefix=prefix, PaginationConfig={"MaxItems": limit, "PageSize": limit}
        ):
            yield from (_Object(entry["Key"], entry["Size"], entry["ETag"]) for entry in page.get("Contents", ()))


def _get_object(client: Any, request: dict[str, Any]) -> dict[str, Any] | None:
    """Return S3's answer, or None where the range begins at or past the end."""
    from botocore.exceptions import ClientError

    try:
        answer: dict[str, Any] = client.get_object(**request)
    except ClientError as error:
        if _status(error.response) == 416:
            return None
        raise
    return answer


def _end_of(client: Any, url: str, request: dict[str, Any], start: int) -> S3Info:
    answer = client.head_object(**{name: value for name, value in request.items() if name != "Range"})
    if answer["ContentLength"] != start:
        raise StartOver(f"{url}: has {answer['ContentLength']} bytes, {start} were fetched of it. Fetch it anew.")
    return S3Info(start, answer["ETag"])


def _whole_size(answer: dict[str, Any], start: int, url: str) -> int:
    if not start:
        return int(answer["ContentLength"])
    served = str(answer.get("ContentRange", ""))  # bytes 5-9/10
    if not served.startswith(f"bytes {start}-"):
        answer["Body"].close()
        raise StartOver(f"{url}: the server does not send parts of files (asked from byte {start} on). Fetch it whole.")
    return int(served.rpartition("/")[2])


def _chunks(url: str, body: Any) -> Iterator[bytes]:
    with _translated(url), contextlib.closing(body):
        while chunk := body.read(_CHUNK):
            yield chunk


def _client(timeout_seconds: float = _TIMEOUT_SECONDS) -> Any:
    """Return this process's client: safe in threads, not across a fork, and it follows the environment."""
    settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client_for(os.getpid(), settings, timeout_seconds)


@lru_cache(maxsize=2)
def _client_for(process: int, settings: tuple[tuple[str, str], ...], timeout_seconds: float) -> Any:
    boto3, botocore = _libraries()
    session = boto3.session.Session()
    signing = {} if session.get_credentials() else {"signature_version": botocore.UNSIGNED}
    retries = {"mode": "standard", "total_max_attempts": 3}  # of single requests; the rest is the caller's
    limits = {"connect_timeout": min(10.0, timeout_seconds), "read_timeout": timeout_seconds}
    return session.client("s3", config=botocore.config.Config(retries=retries, **limits, **signing))


def _libraries() -> tuple[Any, Any]:
    try:
        import boto3
        import botocore.config
    except ImportError as error:
        raise MissingDependencyError(
            "s3:// needs boto3, which is not installed here. Run `pip install -r requirements-extras.txt`, or copy the "
            "files yourself (`aws s3 sync`) and name the folder."
        ) from error
    return boto3, botocore


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """Turn botocore's errors into ours, naming `url`."""
    _libraries()
    from botocore import exceptions as of_boto

    broken = (of_boto.HTTPClientError, of_boto.ConnectionError, of_boto.IncompleteReadError)
    try:
        yield
    except of_boto.ClientError as error:
        raise _error_of(url, error.response) from error
    except of_boto.FlexibleChecksumError as error:
        raise StartOver(f"{url}: the bytes that arrived fail S3's checksum ({error}). Fetch it anew.") from error
    except of_boto.SSLError as error:
        raise TransferError(
            f"{url}: no trusted connection ({error}). Check AWS_ENDPOINT_URL, or AWS_CA_BUNDLE for own certificates."
        ) from error
    except (of_boto.ReadTimeoutError, of_boto.ConnectTimeoutError) as error:
        raise TransferInterrupted(f"{url}: no answer in time. Check the network and AWS_ENDPOINT_URL.") from error
    except broken as error:
        raise TransferInterrupted(
            f"{url}: the connection failed ({error}). Check the network and AWS_ENDPOINT_URL, then start again."
        ) from error
    except (of_boto.BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no URL
        raise TransferError(f"{url}: {error}. Check the address and the AWS settings (~/.aws, AWS_…).") from error


def _error_of(url: str, answer: dict[str, Any]) -> TransferError:
    """Return the error for a refusal of S3's (docs.aws.amazon.com, Error responses)."""
    status, code = _status(answer), str(answer.get("Error", {}).get("Code", ""))
    said = f"S3 answers {status} {code}: {answer.get('Error', {}).get('Message', '')}".rstrip(".: ")
    bucket = _bucket_and_key(url)[0]
    if code == "NoSuchBucket":
        return NotThere(f"{url}: there is no bucket {bucket!r}. Check its name and the endpoint (AWS_ENDPOINT_URL).")
    if status == 404:
        return NotThere(f"{url}: no such object ({said}). Check the spelling.")
    if status == 412:
        return StartOver(f"{url}: the object changed while it was fetched. Fetch it anew.")
    if status in (401, 403) or code in _BAD_CREDENTIALS:
        from botocore import UNSIGNED

        anonymous = _client().meta.config.signature_version is UNSIGNED
        who = "without credentials (none were found)" if anonymous else "with the credentials found"
        return Refused(f"{url}: access denied {who}; {said}. {_ADVICE}")
    if status >= 500 or status == 429 or code in _BUSY:
        return TransferInterrupted(f"{url}: the server is busy or failing ({said}). Start again later.")
    return TransferError(f"{url}: {said}. Check the address.")


def _status(answer: dict[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _bucket_and_key(url: str) -> tuple[str, str]:
    """Split without decoding: a key may hold `?`, `#` and `%`."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise InputError(f"{url}: no address in S3; wanted s3://bucket/prefix.")
    return bucket, key
