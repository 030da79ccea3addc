"""Which vocabulary belongs to shards: the one found beside them, and refusing one that they were not made with."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from bert_pytorch.errors import InputError
from bert_pytorch.records import Vocabulary
from bert_pytorch.shards.entries import ShardEntry
from bert_pytorch.vocabulary import TOKENIZER_JSON, VOCABULARY_FILES, read_vocabulary, vocabulary_sha256


def vocabularies_beside(path: Path, entries: Sequence[ShardEntry], otherwise_lowercase: bool) -> dict[Path, Vocabulary]:
    """Look in each folder of shards, then upwards to the given path's parent; return what is found where."""
    found: dict[Path, Vocabulary] = {}
    top = (path if path.is_dir() else path.parent).resolve()
    casings = {entry.path.parent: entry.attributes.get("lowercase") for entry in entries}
    for folder, casing in sorted(casings.items()):
        for place in [folder, *folder.resolve().parents]:
            if (place / TOKENIZER_JSON).is_file():
                found[place] = read_vocabulary(place)
                break
            if any((place / name).is_file() for name in VOCABULARY_FILES):
                found[place] = read_vocabulary(place, casing, otherwise=otherwise_lowercase)
                break
            if place.resolve() == top.parent:
                break
    return found


def refuse_other_vocabulary(entries: Sequence[ShardEntry], vocabulary: Vocabulary, name: str) -> None:
    """Raise `InputError` where a shard says that it was made with another; foreign shards do not say.

    Args:
        entries: the shards.
        vocabulary: to be used with them.
        name: of the vocabulary, for messages.
    """
    sha256 = vocabulary_sha256(vocabulary)
    for entry in entries:
        written = entry.attributes.get("vocabulary_sha256")
        if written is not None and written != sha256:
            raise InputError(
                f"{entry.path}: it was made with another vocabulary (SHA-256 {written[:12]}…); {name} has "
                f"{len(vocabulary.tokens)} tokens and SHA-256 {sha256[:12]}…. {_advice(entry.path, written)}"
            )
        if entry.attributes.get("lowercase", vocabulary.lowercase) != vocabulary.lowercase:
            found, wanted = ("cased", "lowercase") if entry.attributes["lowercase"] else ("lowercase", "cased")
            raise InputError(f"{entry.path}: it holds {wanted} text, but the vocabulary ({name}) is {found}.")


def _advice(shard: Path, wanted_sha256: str) -> str:
    for place in (shard.parent, *shard.resolve().parents[:3]):
        for name in VOCABULARY_FILES:
            with contextlib.suppress(InputError, OSError):
                if vocabulary_sha256(read_vocabulary(place / name)) == wanted_sha256:
                    return f"Its own is {place / name}: leave --vocab_file out, or name that."
    return "Name its own with --vocab_file, or encode the text again with this one."
