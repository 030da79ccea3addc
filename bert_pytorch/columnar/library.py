"""The one door to pyarrow, and what its errors mean for a file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_pytorch.documents import LARGEST_DOCUMENT
from bert_pytorch.errors import InputError, MissingDependencyError


def load_pyarrow(path: Path) -> Any:
    """Return pyarrow with what reads its formats.

    Raises:
        MissingDependencyError: naming `path`, which needs it.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: reading it needs pyarrow, which is not installed. "
            "Install it: pip install -r requirements-extras.txt"
        ) from error
    return pyarrow


@contextlib.contextmanager
def naming_damage(path: Path, what: str) -> Iterator[None]:
    """Turn what pyarrow says of a damaged file into an `InputError`; errors of the system stay as they are.

    Args:
        path: the file.
        what: its kind, as in "a Parquet file".
    """
    pyarrow = load_pyarrow(path)
    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise _damaged(path, what, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(path, what, error) from None


def _damaged(path: Path, what: str, error: Exception) -> InputError:
    return InputError(f"{path}: not a whole {what} file ({error}). Copy or download it again.")


def is_too_large(text: str | None) -> bool:
    """Whether a text is larger than any that is read."""
    return text is not None and len(text) > LARGEST_DOCUMENT
