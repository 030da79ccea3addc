"""What is known of a shard before it is opened, and who brings the file of one that lies elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bert_pytorch.errors import DamagedShardError
from bert_pytorch.shards.headers import Header
from bert_pytorch.shards.layouts import Layout


class ShardEntry(NamedTuple):
    """What is known of a shard before it is opened."""

    path: Path
    layout: Layout
    num_rows: int
    sequence_length: int
    next_sentence: bool
    attributes: dict[str, Any]
    """Of the file, or what a manifest says for all: `vocabulary_sha256`, `lowercase`."""

    @classmethod
    def of(cls, header: Header) -> "ShardEntry":
        """Take what a header says."""
        return cls(
            header.path,
            header.layout,
            header.num_rows,
            header.sequence_length,
            header.next_sentence,
            {name: header.attributes[name] for name in ("vocabulary_sha256", "lowercase") if name in header.attributes},
        )

    def refuse_other(self, header: Header) -> None:
        """Raise `DamagedShardError` where a header does not say what this does."""
        found = ShardEntry.of(header)
        for name in ("num_rows", "layout", "sequence_length", "next_sentence", "attributes"):
            if getattr(found, name) != getattr(self, name):
                raise DamagedShardError(
                    f"{header.path}: its {name.replace('_', ' ')} is {getattr(found, name)}, its manifest says "
                    f"{getattr(self, name)}. Build the set again.",
                    self.path,
                )


class ShardFiles(Protocol):
    """Brings the files of shards that lie elsewhere."""

    def locate(self, path: Path) -> Path:
        """Wait until the file of a shard is at `path`, and return that."""

    def expect(self, paths: Sequence[Path]) -> None:
        """Begin to fetch files, in this order."""

    def close(self) -> None:
        """End what fetches ahead."""
