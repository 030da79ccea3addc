"""The classes of a model that tags entities: tags of its types, stored in its folder by name."""

from collections.abc import Sequence

import numpy as np

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.tasks.ner.conll import ConllFile
from bert_pytorch.tasks.ner.schemes import OUTSIDE, Scheme, split_tag, tags_of


def labels_of_types(types: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a new model for these types: `O`, then B and I of each."""
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))


def found_types(file: ConllFile) -> tuple[str, ...]:
    """Return the types in a file's tags, sorted.

    Raises:
        InputError: if no word has a type.
    """
    types = _types_of_tags(file.tags)
    if not types:
        raise InputError(
            f"{file.path}: all {len(file.tags)} tags are O, there is nothing to learn. Name a file with entities, or "
            "the types by --labels."
        )
    return tuple(sorted(types))


def types_of_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the types that `--labels` names: tags of any scheme (`O B-LOC I-LOC`), or bare types (`LOC`).

    Raises:
        ConfigError: if it names none.
    """
    names = [label for label in labels if label != OUTSIDE]
    parts = [split_tag(name) for name in names]
    types = [part[1] for part in parts if part is not None]
    if len(types) < len(names):  # a bare type may look like a tag (B-cell), all of them hardly
        types = names
    if not types:
        raise ConfigError("--labels", ["found no type of entity, wanted such as: --labels PER LOC ORG"])
    return tuple(dict.fromkeys(types))


def checked_labels(labels: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of a model that is there already.

    Args:
        labels: of the model, in any order and scheme.
        wanted: what `--labels` names; nothing: any will do.

    Raises:
        ConfigError: if they tag no entities, or other ones than are wanted.
    """
    if any(split_tag(label) is None for label in labels) or OUTSIDE not in labels:
        raise ConfigError(
            "the model", [f"its labels are {_listed(labels)}; wanted O, and B-, I-, E- or S- with a type."]
        )
    found = _types_of_tags(labels)
    if wanted and set(types_of_labels(wanted)) != found:
        raise ConfigError("--labels", [f"found {_listed(wanted)}, the model's are {_listed(labels)}. Leave it out."])
    return tuple(labels)


def label_ids(file: ConllFile, labels: Sequence[str]) -> np.ndarray:
    """Return the class of each word.

    Args:
        file: N words, their tags in any scheme.
        labels: name of each class, of IOB2 or BIOES.

    Returns:
        int64 (N,).

    Raises:
        InputError: at the first word whose type, or tag, has no class.
    """
    ids = {label: index for index, label in enumerate(labels)}
    scheme: Scheme = "BIOES" if any(label.startswith(("E-", "S-")) for label in labels) else "IOB2"
    sentences = zip(file.entities(), file.sentences(file.tags), strict=True)
    tags = [tag for found, words in sentences for tag in tags_of(found, len(words), scheme)]
    for word, tag in enumerate(tags):
        if tag not in ids:
            raise InputError(
                f"{file.where(word)}: the model has no label for {file.tags[word]!r}; its labels are "
                f"{_listed(labels)}. Correct the file, or train with this type."
            )
    return np.fromiter((ids[tag] for tag in tags), np.int64, len(tags))


def _types_of_tags(tags: Sequence[str]) -> set[str]:
    return {tag.partition("-")[2] for tag in set(tags) - {OUTSIDE}}


def _listed(labels: Sequence[str]) -> str:
    shown = " ".join(labels[:20])
    return shown if len(labels) <= 20 else f"{shown} … ({len(labels)} in all)"
