"""A folder that is built: told apart as new, begun or finished, and never two different builds in one.

`unfinished.json` is there from the first byte to the last; the record of a finished build is written before it goes.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_json, remove_partial_files
from bert_pytorch.shards.layouts import UNFINISHED

logger = logging.getLogger(__name__)


def fingerprint_of(*decisive: Any) -> str:
    """Hash everything that decides the bytes of a build."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


class Build(NamedTuple):
    """One build in one folder."""

    folder: Path
    record_name: str
    """File that a finished build has; JSON with `fingerprint` and `settings`."""
    fingerprint: str
    settings: dict[str, Any]
    """Those that decide the bytes, for the message that names what differs."""
    products: tuple[str, ...]
    """Glob patterns of what the build makes."""

    @property
    def settings_text(self) -> str:
        """The settings as JSON on one line."""
        return json.dumps(self.settings, sort_keys=True)

    def needs_work(self) -> bool:
        """Tell whether the build is not finished yet.

        Raises:
            InputError: if the folder holds another build, or products of unknown origin.
        """
        record, state = self.folder / self.record_name, self.folder / UNFINISHED
        found = _read(state) or _read(record)
        if found is None:
            if any(self._products()):
                raise InputError(
                    f"{self.folder}: it holds {' and '.join(self.products)} files of unknown origin. Choose another "
                    "--output, or remove them with --overwrite."
                )
            return True
        if found.get("fingerprint") != self.fingerprint:
            before = found.get("settings", {})
            changes = [
                f"{name} {before.get(name)} → {self.settings.get(name)}"
                for name in dict.fromkeys([*self.settings, *before])
                if before.get(name) != self.settings.get(name)
            ]
            raise InputError(
                f"{self.folder}: it holds a build with other settings ({', '.join(changes) or 'or other input'}). "
                "Choose another --output, or start anew with --overwrite."
            )
        return state.exists() or not record.exists()

    @contextlib.contextmanager
    def in_work(self) -> Iterator[None]:
        """Mark the folder as unfinished while work goes on in it; no part of a file stays, however it ends."""
        remove_partial_files(self.folder)  # of an earlier start that was killed
        atomic_write_json(self.folder / UNFINISHED, {"fingerprint": self.fingerprint, "settings": self.settings})
        try:
            yield
        finally:
            remove_partial_files(self.folder)  # of workers that were ended, or killed and replaced

    def finish(self, record: dict[str, Any]) -> None:
        """Write the record and take the mark away."""
        atomic_write_json(self.folder / self.record_name, record)
        (self.folder / UNFINISHED).unlink()

    def clear(self) -> None:
        """Remove what an earlier build left, whatever its settings."""
        for path in (self.folder / self.record_name, self.folder / UNFINISHED, *self._products()):
            path.unlink(missing_ok=True)

    def _products(self) -> list[Path]:
        return [path for pattern in self.products for path in self.folder.glob(pattern)]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path}: it is damaged. Start anew with --overwrite.")
    return content
