"""The unfinished copy of a file: kept over a kill so that fetching goes on, and never under the file's own name."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bert_pytorch.files import TEMPORARY_PREFIX, atomic_write_json, move_into_place
from bert_pytorch.remote.files import RemoteFile
from bert_pytorch.remote.paths import PARTS_FOLDER


class Part:
    """What has arrived of one file, and from where.

    It lies in a folder of its own, since `files.remove_partial_files` clears what lies directly in the output folder.
    Its name begins with a dot, so that no search for input takes it.

    Attributes:
        path: the unfinished copy; only ever appended to.
        size: its bytes.
    """

    def __init__(self, file: RemoteFile, folder: Path) -> None:
        key = hashlib.sha256(file.path.encode()).hexdigest()[:16]
        self.path = folder / PARTS_FOLDER / f"{TEMPORARY_PREFIX}{key}-{file.path.rpartition('/')[2][-40:]}"
        self._state_path = self.path.with_name(f"{TEMPORARY_PREFIX}{key}.json")
        self._checksum = file.checksum
        self._state = _read(self._state_path)
        self.size = self.path.stat().st_size if self.path.exists() else 0
        if self._state.get("wanted") != self._wanted(file):
            self.discard()
        self._state["wanted"] = self._wanted(file)

    @staticmethod
    def _wanted(file: RemoteFile) -> list[Any]:
        return [file.size, file.checksum]

    def continue_from(self, url: str) -> str | None:
        """Return the validator with which the file at `url` continues this part.

        Without one, and from another mirror, the part is discarded unless a published checksum will tell at the end
        whether the pieces belong together.
        """
        etag = self._state.get("etag") if self._state.get("source") == _key(url) else None
        if self.size and etag is None and self._checksum is None:
            self.discard()
        return etag

    def belongs_to(self, url: str, etag: str | None) -> None:
        """Write down where the following bytes come from; only a hash of `url`, which may hold a password."""
        state = {**self._state, "source": _key(url), "etag": etag}
        if state != self._state or not self._state_path.exists():
            self._state = state
            atomic_write_json(self._state_path, state)

    def discard(self) -> None:
        """Throw away what has arrived."""
        self.path.unlink(missing_ok=True)
        self._state_path.unlink(missing_ok=True)
        self._state = {name: value for name, value in self._state.items() if name == "wanted"}
        self.size = 0

    def finish(self, target: Path) -> None:
        """Give the whole file its name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(self.path, target)
        self._state_path.unlink(missing_ok=True)


def _key(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
