"""What a source is: a name, what a person should know of it, its options, and the files that these choose."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from bert_pytorch.config.settings import Settings
from bert_pytorch.remote.files import RemoteFile


class DownloadConfig(Settings):
    """What all sources take."""

    output: Path | None = None
    """Folder for the files."""
    mirror: tuple[str, ...] = ()
    """Addresses (https://, http:// or s3://) that take the place of the source's own, tried in order; below them files
    lie as they do there."""
    retries: int = Field(5, ge=0)
    """Further tries after a broken connection, counted anew whenever bytes have arrived."""
    timeout_seconds: float = Field(30.0, gt=0)
    """How long to wait for a connection, and for each piece of an answer."""
    overwrite: bool = False
    """Fetch anew what is there already."""

    renamed_flags: ClassVar[dict[str, str]] = {
        "base_url": "--mirror",
        "dir": "--output",
        "output_dir": "--output",
        "datasets": "the source's name before the options",
    }

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination."""
        yield from super().combination_problems()
        if self.output is None:
            yield "--output is missing: name a folder for the files."

    @property
    def folder(self) -> Path:
        """The output folder of checked settings."""
        assert self.output is not None
        return self.output


class Download(NamedTuple):
    """One file to fetch, and what becomes of it."""

    file: RemoteFile
    unpack_to: str | None = None
    """Folder below the output folder that the archive becomes."""
    contents: Mapping[str, str] = {}
    """SHA-256 of files in the archive, where published."""


class Source(NamedTuple):
    """One entry of the catalogue."""

    name: str
    what: str
    licence: str
    size: str
    """Of the download, about."""
    options: str
    """Of an example command."""
    settings: type[DownloadConfig]
    plan: Callable[[Any], list[Download]]
    """From settings of that class to files."""
    finish: Callable[[Path], None] | None = None
    """Brings what has arrived in the output folder into the shape that the next stage reads."""


def mirrored(bases: Sequence[str], config: DownloadConfig, place: str) -> tuple[str, ...]:
    """Return the addresses of the file at `place` below the mirrors asked for, else below `bases`."""
    return tuple(f"{base.rstrip('/')}/{place}" for base in config.mirror or bases)
