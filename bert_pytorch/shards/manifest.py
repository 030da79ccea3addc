"""`manifest.json`: what a set of shards is made of and from; equal builds give equal bytes."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bert_pytorch.errors import InputError
from bert_pytorch.shards.layouts import LONGEST_SEQUENCE, MANIFEST, SCHEMA_VERSION, Layout

_MOST_ROWS = 2**40
"""Of a shard, so that those of all can be added up, whatever a hostile file says."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class ShardRecord(_Record):
    """One file of the set."""

    name: str
    rows: int = Field(gt=0, le=_MOST_ROWS)
    tokens: int
    """Tokens before the padding, special ones included."""
    shortest: int = 0
    """Tokens of its shortest sequence; bins of length make shards of similar sequences."""
    longest: int = 0
    """Tokens of its longest sequence."""
    bytes: int = 0
    """Size of the file; 0 in manifests of the first version."""
    sha256: str


class SplitCounts(_Record):
    """Sums over the shards of one part."""

    documents: int
    sequences: int
    tokens: int
    length_histogram: tuple[int, ...] = ()
    """Sequences of each length in tokens, 0 to L."""


class Manifest(_Record):
    """A finished set; written last, so that its presence says that all shards are there."""

    schema_version: int = SCHEMA_VERSION
    layout: Layout
    sequence_length: int = Field(gt=0, le=LONGEST_SEQUENCE)
    next_sentence: bool
    vocabulary_sha256: str
    vocabulary_size: int
    lowercase: bool
    seed: int
    settings: dict[str, Any]
    """All settings that decide the bytes."""
    input_sha256: str
    """Of the formatted text, file by file."""
    fingerprint: str
    """Of settings, input and vocabulary: equal fingerprints, equal sets."""
    train: SplitCounts
    eval: SplitCounts
    shards: tuple[ShardRecord, ...]


def read_manifest(folder: Path) -> Manifest | None:
    """Read a folder's manifest; None where it has none.

    Raises:
        InputError: if it is damaged, or of a newer schema.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise InputError(f"{path}: it is not JSON. Build the set again: python -m bert_pytorch.corpus encode") from None
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        names = ", ".join(sorted({str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}))
        raise InputError(
            f"{path}: missing or wrong: {names or 'everything'}. Build the set again with encode."
        ) from None
    if manifest.schema_version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema version {manifest.schema_version}, this version reads up to {SCHEMA_VERSION}. "
            "Update bert_pytorch."
        )
    return manifest
