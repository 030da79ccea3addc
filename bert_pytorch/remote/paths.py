"""Names that come from elsewhere become paths below a folder only if they stay there."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from bert_pytorch.errors import InputError
from bert_pytorch.files import TEMPORARY_PREFIX

_LONGEST_NAME = 255
"""Bytes in a name, on the usual file systems."""
_SHOWN = 10
PARTS_FOLDER = ".downloads"
"""Below the output folder: unfinished copies, and records of what was done."""
_OWN_NAMES = (".lock", ".lock-workers", PARTS_FOLDER)


def refuse_unsafe_paths(paths: Iterable[str], where: str) -> None:
    """Refuse paths that would leave the output folder, or of which one is a file and a folder at once.

    Args:
        paths: relative, with forward slashes.
        where: what holds them, for the message.

    Raises:
        InputError: naming those paths, the first ten of them.
    """
    known = set(paths)
    found = [(path, path_problem(path) or _conflict(path, known)) for path in sorted(known)]
    refused = [f"{path!r} {problem}" for path, problem in found if problem]
    if refused:
        more = [f"and {len(refused) - _SHOWN} more"] if len(refused) > _SHOWN else []
        listed = "".join(f"\n  - {line}" for line in [*refused[:_SHOWN], *more])
        raise InputError(
            f"{where}: {len(refused)} of {len(known)} names cannot become files below the output folder:{listed}\n"
            "Nothing was fetched. Rename them there, or choose a part without them."
        )


def path_problem(path: str) -> str | None:
    """Return why `path` is not a safe relative path, as the end of a sentence, or None."""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in path):
        return "holds control characters"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    if ".." in parts:
        return "climbs out with '..'"
    if "" in parts or "." in parts:
        return "has an empty part"
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return f"has a name of more than {_LONGEST_NAME} bytes"
    if parts[0] in _OWN_NAMES or any(part.startswith(TEMPORARY_PREFIX) for part in parts):
        return "is a name that this program uses itself"
    return None


def _conflict(path: str, known: set[str]) -> str | None:
    """Object stores may hold both `a` and `a/b`; a folder cannot."""
    parents = (str(parent) for parent in PurePosixPath(path).parents)
    folder = next((parent for parent in parents if parent in known), None)
    return None if folder is None else f"lies below {folder!r}, which is a file too"
