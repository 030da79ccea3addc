"""Folders that archives became: which of them are whole, and how a new one takes an old one's place."""

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from bert_pytorch.downloads.source import Download
from bert_pytorch.errors import InputError
from bert_pytorch.files import TEMPORARY_PREFIX, atomic_write_json, move_into_place, sha256_of
from bert_pytorch.remote.archives import unpack
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.paths import PARTS_FOLDER, path_problem

logger = logging.getLogger(__name__)


def is_unpacked(item: Download, folder: Path, overwrite: bool) -> bool:
    """Tell whether the archive's folder below `folder` is there and of this very archive, as its record says.

    Raises:
        InputError: if something else stands there, or it cannot be known what.
    """
    if item.unpack_to is None:
        return False
    problem = path_problem(item.unpack_to)
    if problem is not None:
        raise InputError(f"{item.file.path}: its folder {item.unpack_to!r} {problem}. Say another name with --path.")
    target = folder / item.unpack_to
    if not target.exists() and not target.is_symlink():
        return False
    if not target.is_dir() or (overwrite and target.is_symlink()):
        kind = "link" if target.is_symlink() else "file"
        raise InputError(
            f"{target}: is a {kind}, where the folder that {item.file.path} unpacks to is wanted. Move it away, or "
            "choose another folder with --output."
        )
    if overwrite:
        return False
    if not _is_of(item.file, _record_of(_record_path(item, folder))):
        raise InputError(
            f"{target}: no record says that this folder is what {item.file.path} of this source unpacks to. Move it "
            "away, choose another folder with --output, or have it replaced with --overwrite."
        )
    logger.info("%s: there already", target)
    return True


def unpack_download(item: Download, archive: Path, folder: Path, fetched: bool) -> None:
    """Unpack `archive` to the folder below `folder`; one that is there is replaced once the new one is whole.

    Args:
        item: what the archive is.
        archive: its path.
        folder: the output folder, locked.
        fetched: whether this start has fetched it; then a bad one is removed, so that the next start fetches anew.

    Raises:
        InputError: as `unpack`; the old folder is untouched.
    """
    assert item.unpack_to, "an empty name would be the output folder itself"
    target = folder / item.unpack_to
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
    old = temporary / "old"
    try:
        try:
            unpack(archive, temporary / "new", item.contents)
        except InputError as error:
            if not fetched:
                raise
            archive.unlink()
            raise InputError(f"{error}\nThe bad archive was removed: the next start fetches it anew.") from error
        record = _new_record(item.file, archive)
        if target.exists():
            target.rename(old)
        atomic_write_json(_record_path(item, folder), record)  # before the folder, which a kill would leave unknown
        move_into_place(temporary / "new", target)
    finally:
        if old.exists() and not target.exists():
            _record_path(item, folder).unlink(missing_ok=True)  # it may be the new one's already
            old.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
    logger.info("%s: unpacked", target)


def _record_path(item: Download, folder: Path) -> Path:
    key = hashlib.sha256(str(item.unpack_to).encode()).hexdigest()[:16]
    return folder / PARTS_FOLDER / f".unpacked-{key}.json"


def _new_record(file: RemoteFile, archive: Path) -> dict[str, Any]:
    return {
        "archive": file.path,
        "size": archive.stat().st_size,
        "checksum": (file.checksum or f"sha256:{sha256_of(archive)}").lower(),
        "urls": _key(file),
    }


def _is_of(file: RemoteFile, record: dict[str, Any]) -> bool:
    """Whether a record is of `file`; where its checksum is known, from whichever mirror."""
    if record.get("archive") != file.path or file.size not in (None, record.get("size")):
        return False
    if file.checksum is not None:
        return record.get("checksum") == file.checksum.lower()
    return record.get("urls") == _key(file)


def _key(file: RemoteFile) -> str:
    """A hash of the addresses, which may hold passwords."""
    return hashlib.sha256("\n".join(file.urls).encode()).hexdigest()


def _record_of(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
