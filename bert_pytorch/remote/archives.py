"""Unpack zip and tar archives that nobody vouches for: every member is checked, and the folder is whole or not there.

Members are read and written by this module, never by the libraries' `extract`: what may be written does not depend on
Python's patch level (`tarfile.data_filter` came with 3.11.4, and corrections to it since), and modes, owners and
links are not taken over at all.
"""

import bz2
import contextlib
import gzip
import hashlib
import logging
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from bert_pytorch.errors import InputError
from bert_pytorch.files import TEMPORARY_PREFIX, move_into_place
from bert_pytorch.progress import Progress
from bert_pytorch.remote.paths import path_problem

logger = logging.getLogger(__name__)

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CHUNK = 1 << 20
_LARGEST_HEADER = 1 << 24
_LITTER = ("__MACOSX", ".DS_Store")
"""What macOS leaves in archives."""


class UnpackLimits(NamedTuple):
    """Where an archive is taken for a bomb; a text corpus unpacks to about 4 times its size."""

    members: int = 200_000
    ratio: float = 200.0
    """Unpacked bytes for each byte of the archive …"""
    small: int = 256 << 20
    """… beyond this many bytes, which are always allowed."""
    bytes: int = 1 << 40


class Member(NamedTuple):
    """One entry of an archive."""

    name: str
    kind: str
    """`file`, `folder`, or what else it is."""
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path,
    folder: Path,
    checksums: Mapping[str, str] | None = None,
    limits: UnpackLimits = UnpackLimits(),  # noqa: B008 immutable
) -> None:
    """Unpack `archive` into the new folder `folder`; on any problem there is none.

    Where everything lies in one top folder, that one becomes `folder`.

    Args:
        archive: .zip, .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz, recognised by its name.
        folder: must not exist.
        checksums: SHA-256 that files must have, by name below `folder`.
        limits: for bombs.

    Raises:
        InputError: for a damaged archive, a bomb, a wrong checksum, and members that are links or devices, come twice
            or would lie outside of `folder`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=folder.parent))
    try:
        inside = temporary / "unpacked"
        inside.mkdir()
        with _damage_told(archive):
            _write_members(archive, inside, limits)
        top = _top(inside)
        for name, wanted in (checksums or {}).items():
            _check(top / name, wanted, archive)
        os.sync()  # once, not for each of thousands of files
        move_into_place(top, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_members(archive: Path, folder: Path, limits: UnpackLimits) -> None:
    packed = archive.stat().st_size
    most = min(limits.bytes, max(limits.small, int(packed * limits.ratio)))
    seen: set[str] = set()
    unpacked = 0
    with Progress(f"unpack {archive.name}", None) as progress:
        for number, member in enumerate(_members(archive, most)):
            if number >= limits.members:
                raise InputError(f"{archive}: it has over {limits.members:,} members. It is not unpacked.")
            name = member.name.removeprefix("./").rstrip("/")
            if not name or any(part in _LITTER for part in name.split("/")):
                continue
            if not _is_wanted(member, name, archive):
                continue
            if name in seen and member.kind == "file":
                raise InputError(f"{archive}: {name!r} is in it twice. It is not unpacked.")
            seen.add(name)
            if member.kind == "folder":
                (folder / name).mkdir(parents=True, exist_ok=True)
                continue
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with member.open() as content, (folder / name).open("xb") as output:
                while chunk := content.read(_CHUNK):
                    unpacked += len(chunk)
                    if unpacked > most:
                        raise _bomb(archive, most)
                    output.write(chunk)
                    progress.advance(len(chunk))


def _is_wanted(member: Member, name: str, archive: Path) -> bool:
    """Tell whether to unpack a member.

    Raises:
        InputError: if it is one that no honest archive of text has.
    """
    if member.kind not in ("file", "folder"):
        raise InputError(f"{archive}: {name!r} is a {member.kind}; only files and folders are unpacked. Nothing was.")
    problem = path_problem(name)
    if problem is None:
        return True
    if problem == "holds control characters" and ".." not in name and not name.startswith("/"):
        logger.warning("%s: %r is left out: its name %s", archive, name, problem)  # such as macOS' "Icon\r"
        return False
    raise InputError(f"{archive}: the name {name!r} {problem}. Nothing was unpacked; get the archive from elsewhere.")


def _members(archive: Path, most: int) -> Iterator[Member]:
    if archive.name.endswith(".zip"):
        yield from _zip_members(archive)
    elif archive.name.endswith(ARCHIVE_ENDINGS):
        yield from _tar_members(archive, most)
    else:
        raise InputError(f"{archive}: what kind of archive is this? Wanted one of {', '.join(ARCHIVE_ENDINGS)}.")


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = info.external_attr >> 16
            if info.flag_bits & 1:
                kind = "encrypted file"
            elif stat.S_ISLNK(mode):
                kind = "link"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "device"
            else:
                kind = "folder" if info.is_dir() else "file"
            # orig_filename: ZipFile cuts names at NUL, after which two of them may be one
            yield Member(info.orig_filename, kind, lambda info=info: file.open(info))  # type: ignore[misc]


def _tar_members(archive: Path, most: int) -> Iterator[Member]:
    with _decompressed(archive) as content:
        bounded = _Bounded(content, archive, most)
        with tarfile.open(fileobj=bounded, mode="r:") as file:  # type: ignore[call-overload]
            while (info := file.next()) is not None:
                file.members.clear()  # tarfile keeps all, a kilobyte each
                if info.issparse():
                    kind = "sparse file"
                elif info.isreg():
                    kind = "file"
                elif info.isdir():
                    kind = "folder"
                else:
                    kind = "link" if info.issym() or info.islnk() else "device"
                yield Member(info.name, kind, lambda info=info: file.extractfile(info))  # type: ignore[misc]
        _check_end(bounded)


def _check_end(content: "_Bounded") -> None:
    """Refuse a tar archive that does not end with a block of zeros and nothing else.

    `TarFile.next` takes a bad or missing header for the end.  Reading on also lets gzip compare its checksum.
    """
    chunk, zeros = content.last, 0
    while chunk:
        zeros += len(chunk)
        if chunk.strip(b"\0"):
            raise tarfile.ReadError("a bad header, or more data after the end")
        chunk = content.read(_CHUNK)
    if zeros < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("cut off between two files")


def _decompressed(archive: Path) -> Any:
    if archive.name.endswith((".gz", ".tgz")):
        return gzip.open(archive)
    if archive.name.endswith(".bz2"):
        return bz2.open(archive)
    return lzma.open(archive) if archive.name.endswith(".xz") else archive.open("rb")


class _Bounded:
    """A stream of a tar archive that is not read without end: a header may claim any size and is read whole."""

    def __init__(self, content: Any, archive: Path, most: int) -> None:
        self._content, self._archive, self._most = content, archive, most + (most >> 1) + _LARGEST_HEADER
        self.last = b""
        """What the last read returned; behind the last member, the block that was wanted as a header."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        self.last = self._content.read(size)
        self._check()
        return self.last

    def seek(self, position: int, whence: int = 0) -> int:
        if position > self._most:
            raise _bomb(self._archive, self._most)
        moved: int = self._content.seek(position, whence)
        self._check()
        return moved

    def tell(self) -> int:
        position: int = self._content.tell()
        return position

    def _check(self) -> None:
        if self.tell() > self._most:
            raise _bomb(self._archive, self._most)


def _bomb(archive: Path, most: int) -> InputError:
    return InputError(
        f"{archive}: it unpacks to more than {most / 1e9:.1f} GB, far more than text does. Nothing was unpacked; get "
        "the archive from elsewhere, or unpack it yourself."
    )


def _top(folder: Path) -> Path:
    """The only folder in `folder`, or `folder`."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def _check(path: Path, wanted: str, archive: Path) -> None:
    if not path.is_file():
        raise InputError(f"{archive}: it holds no {path.name}. It is another archive; remove it and start again.")
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != wanted:
        raise InputError(
            f"{archive}: the SHA-256 of {path.name} in it is {found}, wanted {wanted}. Remove it and start again."
        )


@contextlib.contextmanager
def _damage_told(archive: Path) -> Iterator[None]:
    damage = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError, ValueError, NotImplementedError)
    try:
        yield
    except (*damage, RuntimeError, zlib.error) as error:
        raise InputError(f"{archive}: the archive is damaged ({error}). Remove it and fetch it again.") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(f"{archive}: the archive is damaged ({error}). Remove it and fetch it again.") from error
