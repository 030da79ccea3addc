"""What kind of text a file is: a format and a compression, told by its name and checked against its first bytes."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

Format = Literal["text", "jsonl", "csv", "tsv", "parquet", "wikipedia"]
Compression = Literal["", "gz", "bz2", "zst"]

_FORMATS: dict[str, Format] = {
    ".txt": "text", ".jsonl": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".xml": "wikipedia",
}  # fmt: skip
_PART_OF_DUMP = re.compile(r"\.xml-p\d+p\d+")
"""Wikimedia's larger dumps come as files named by the pages they hold."""
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".bz2": "bz2", ".zst": "zst"}
_MAGIC: dict[str, tuple[bytes, ...]] = {
    "gzip": (b"\x1f\x8b",),
    "bzip2": (b"BZh",),
    "Zstandard": (b"\x28\xb5\x2f\xfd", *(bytes([low, 0x2A, 0x4D, 0x18]) for low in range(0x50, 0x60))),
    "Parquet": (b"PAR1",),
    "ZIP": (b"PK\x03\x04",),
    "xz": (b"\xfd7zXZ\x00",),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c",),
    "PDF": (b"%PDF-",),
}
"""How files begin; Zstandard's second kind are its skippable frames (RFC 8878, section 3.1.2)."""
COMPRESSION_NAMES = {"gz": "gzip", "bz2": "bzip2", "zst": "Zstandard"}

KNOWN_ENDINGS = (
    ".txt, .jsonl, .json (one object a line), .csv, .tsv, each also with .gz, .bz2 or .zst; .parquet; .xml.bz2"
)


class Kind(NamedTuple):
    """What a file holds and how it is packed."""

    format: Format
    compression: Compression


def kind_of(path: Path) -> Kind | None:
    """Tell a file's kind by its name; None for names that are not input, hidden ones among them."""
    name = path.name.lower()
    if name.startswith("."):
        return None
    ending = Path(name).suffix
    compression = _COMPRESSIONS.get(ending, "")
    suffix = Path(name.removesuffix(ending) if compression else name).suffix
    form = _FORMATS.get(_PART_OF_DUMP.sub(".xml", suffix))
    if form is None or (form == "parquet" and compression) or (form == "wikipedia" and compression != "bz2"):
        return None
    return Kind(form, compression)


def content_problem(path: Path, kind: Kind) -> str | None:
    """Say what is wrong with a file whose first bytes are not those of its kind; None if nothing is."""
    with path.open("rb") as file:
        head = file.read(8)
        size = file.seek(0, 2)
        file.seek(max(0, size - 4))
        tail = file.read()
    found = next((name for name, starts in _MAGIC.items() if head.startswith(starts)), None)
    wanted = "Parquet" if kind.format == "parquet" else COMPRESSION_NAMES.get(kind.compression)
    if found == wanted and not (wanted == "Parquet" and (tail != b"PAR1" or size < 12)):
        return None
    if wanted is None:
        return f"{path}: its content is {found}, not plain text. Unpack it, or give it the ending of what it is."
    if found == wanted or not head:
        return f"{path}: not a whole {wanted} file ({size:,} bytes). Copy or download it again."
    return (
        f"{path}: not a {wanted} file, whatever its name says: its content is {found or 'something else'}. "
        "Copy or download it again, or rename it."
    )
