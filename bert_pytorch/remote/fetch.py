"""Fetch a file whole and verified: from its mirrors in order, going on where an earlier try ended."""

import contextlib
import logging
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bert_pytorch.errors import InputError
from bert_pytorch.files import exclusive_lock
from bert_pytorch.progress import Progress
from bert_pytorch.remote.checks import describe_checksum, problem_with
from bert_pytorch.remote.errors import StartOver, TransferError, TransferInterrupted
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.http import read_http
from bert_pytorch.remote.http_errors import show_url
from bert_pytorch.remote.part import Part
from bert_pytorch.remote.paths import refuse_unsafe_paths

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 300.0
"""Seconds; a server that asks for more is given up for now."""
_MOST_RESTARTS = 3
_MOST_FAILURES = 3
"""Files that cannot be had before the others are not tried any more: then it is not the file."""
_SHOWN = 20


class FetchOptions(NamedTuple):
    """How patiently files are fetched."""

    retries: int = 5
    """Further tries of one mirror after a broken connection, counted anew whenever bytes have arrived."""
    timeout_seconds: float = 30.0
    """How long to wait for a connection, and for each piece of an answer."""
    first_pause_seconds: float = 1.0
    """Pause before the first further try, doubled each time up to a minute, each by a random factor of 0.5 to 1.5."""
    overwrite: bool = False
    """Fetch anew what is there."""
    sleep: Callable[[float], object] = time.sleep
    jitter: random.Random = random.Random()
    cancelled: Callable[[], bool] = lambda: False
    """Asked before each try and after each piece that arrives: whether to give up; what has arrived stays."""


class Info(Protocol):
    """What a server says of a file."""

    @property
    def size(self) -> int | None:
        """Bytes of the whole file."""

    @property
    def etag(self) -> str | None:
        """Changes with the content."""


def fetch(file: RemoteFile, folder: Path, options: FetchOptions = FetchOptions()) -> Path:  # noqa: B008 immutable
    """Fetch one file; see `fetch_all`."""
    return fetch_all([file], folder, options)[0]


def fetch_all(files: Sequence[RemoteFile], folder: Path, options: FetchOptions = FetchOptions()) -> list[Path]:  # noqa: B008
    """Fetch files into `folder` and return their paths; whole or not there, each of them.

    Where one cannot be had the others are still fetched, until three have failed.  What is there already is verified
    and kept.  What has arrived of a file survives a kill, and the next call goes on from there; memory use does not
    depend on sizes.  Files of known size or checksum are compared with it.

    Raises:
        TransferError: where no mirror has a file as wanted; says how to provide it by hand.
        InputError: for unsafe paths, a file there that is not the one wanted, a full disk, another writer.
    """
    refuse_unsafe_paths([file.path for file in files], "the list of files")
    twice = [path for path, count in Counter(file.path for file in files).items() if count > 1]
    if twice:
        raise InputError(f"{folder / twice[0]}: two files would go there. Fetch them into different folders.")
    failures: list[str] = []
    with exclusive_lock(folder, "downloads"):
        for file in files:
            try:
                _fetch(file, folder, options)
            except TransferError as error:
                failures.append(str(error))
                if len(failures) >= _MOST_FAILURES:
                    break
    if failures:
        missing = [file for file in files if not (folder / file.path).exists()]
        raise TransferError("\n".join(failures) + _how_by_hand(missing, folder))
    return [folder / file.path for file in files]


def _fetch(file: RemoteFile, folder: Path, options: FetchOptions) -> None:
    """Fetch one file.

    Raises:
        TransferError: where no mirror has it; names each one's reason.
    """
    target = folder / file.path
    if target.exists() and not options.overwrite:
        _accept(file, target)
        return
    failures = []
    part = Part(file, folder)
    for url in file.urls:
        try:
            _fetch_from(url, file, part, target, options)
        except TransferError as error:
            failures.append(f"\n  - {error}")
            if url != file.urls[-1]:
                logger.info("%s Trying the next mirror.", error)
            continue
        part.finish(target)
        logger.info("%s: whole; %s", target, describe_checksum(file))
        return
    kept = f"\n  {part.size / 1e6:.1f} MB have arrived and are kept." if part.size else ""
    raise TransferError(f"{file.path}: no place has it as wanted:{''.join(failures)}{kept}")


def _accept(file: RemoteFile, target: Path) -> None:
    problem = problem_with(file, target)
    if problem:
        raise InputError(
            f"{target}: {problem}. It is not the file wanted: remove it or put the right one there, then start again; "
            "--overwrite fetches it anew."
        )
    logger.info("%s: there already; %s", target, describe_checksum(file))


def _fetch_from(url: str, file: RemoteFile, part: Part, target: Path, options: FetchOptions) -> None:
    """Bring `part` to its end from one mirror.

    Raises:
        TransferError: where this mirror cannot give the file as wanted.
    """
    tries = restarts = 0
    while True:
        before = part.size
        try:
            _receive(url, file, part, target, options)
            problem = problem_with(file, part.path)
            if problem is None:
                return
            part.discard()
            broken = TransferError(f"{show_url(url)}: {problem}.")
            if not before:
                raise broken
            raise StartOver(str(broken))  # the pieces of several tries; from one piece it may come out right
        except StartOver as error:
            part.discard()
            restarts += 1
            if restarts > _MOST_RESTARTS:
                raise
            logger.info("%s", error)
        except TransferInterrupted as error:
            tries = 1 if part.size > before else tries + 1
            pause = _pause(tries, error, options)
            if tries > options.retries or pause is None:
                raise
            logger.info("%s Trying again in %.1f s (%d of %d).", error, pause, tries, options.retries)
            options.sleep(pause)


def _pause(tries: int, error: TransferInterrupted, options: FetchOptions) -> float | None:
    pause = min(options.first_pause_seconds * 2 ** (tries - 1), 60.0) * options.jitter.uniform(0.5, 1.5)
    asked = error.retry_after_seconds or 0.0
    return None if asked > _LONGEST_WAIT else max(pause, asked)


def _receive(url: str, file: RemoteFile, part: Part, target: Path, options: FetchOptions) -> None:
    """Append what is missing to `part`, once."""
    _refuse_cancelled(url, options)
    etag = part.continue_from(url)
    info, chunks = _open(url, file, part.size, etag, options)
    size = info.size if file.size is None else file.size
    if info.size is not None and info.size != size:
        raise TransferError(f"{show_url(url)}: has {info.size:,} bytes there, wanted {size:,}: it is another file.")
    part.path.parent.mkdir(parents=True, exist_ok=True)
    _check_space(target, part, size)
    part.belongs_to(url, info.etag)
    with (
        Progress(file.path, size, part.size) as progress,
        _errors_naming(target),
        part.path.open("ab") as output,
    ):
        for chunk in chunks:
            if size is not None and part.size + len(chunk) > size:
                raise StartOver(f"{show_url(url)}: sends more than the {size:,} bytes that the file has.")
            output.write(chunk)
            part.size += len(chunk)
            progress.advance(len(chunk))
            _refuse_cancelled(url, options)
    if size is not None and part.size < size:
        raise TransferInterrupted(f"{show_url(url)}: ended after {part.size:,} of {size:,} bytes.")


def _refuse_cancelled(url: str, options: FetchOptions) -> None:
    if options.cancelled():
        raise TransferError(f"{show_url(url)}: given up, since what it is for has ended.")


def _open(
    url: str, file: RemoteFile, start: int, etag: str | None, options: FetchOptions
) -> tuple[Info, Iterator[bytes]]:
    if url.startswith("s3://"):
        from bert_pytorch.remote.s3 import read_s3  # the door to boto3, which is optional

        return read_s3(url, start, etag, timeout_seconds=options.timeout_seconds)
    return read_http(url, start, etag, secret=file.secret_header, timeout_seconds=options.timeout_seconds)


def _check_space(target: Path, part: Part, size: int | None) -> None:
    free = shutil.disk_usage(part.path.parent).free
    if size is not None and size - part.size > free:
        raise InputError(
            f"{target}: needs {(size - part.size) / 1e9:.2f} GB more, {free / 1e9:.2f} GB are free there. Free some "
            "space or choose another folder with --output."
        )


@contextlib.contextmanager
def _errors_naming(target: Path) -> Iterator[None]:
    """Let a full disk name the file; network errors were translated where they came from."""
    try:
        yield
    except OSError as error:
        error.filename = str(target)
        raise


def _how_by_hand(missing: Sequence[RemoteFile], folder: Path) -> str:
    """Say which address goes where; for files to overwrite there is nothing to say."""
    if not missing:
        return "\nStart again to go on."
    told = "".join(
        f"\n  {show_url(file.urls[0])}\nput it here:\n  {(folder / file.path).absolute()}" for file in missing[:_SHOWN]
    )
    more = f"\nand so for {len(missing) - _SHOWN} more files," if len(missing) > _SHOWN else ""
    return (
        f"\nStart again to go on. Or provide by hand what is missing: fetch, on a machine that can,{told}{more}\n"
        "and give the same command: it verifies what is there and goes on."
    )
