"""The classes of a model that tags entities: IOB2 tags of its types, stored in its folder by name."""

from collections.abc import Sequence

import numpy as np

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.tasks.ner.conll import ConllFile
from bert_pytorch.tasks.ner.schemes import OUTSIDE, split_tag, tags_of


def labels_of_types(types: Sequence[str]) -> tuple[str, ...]:
    """Return the classes for these types: `O`, then B and I of each."""
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))


def found_types(file: ConllFile) -> tuple[str, ...]:
    """Return the types in a file's tags, sorted.

    Raises:
        InputError: if no word has a type.
    """
    types = {tag.partition("-")[2] for tag in set(file.tags) - {OUTSIDE}}
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


def label_ids(file: ConllFile, labels: Sequence[str]) -> np.ndarray:
    """Return the class of each word.

    Args:
        file: N words, their tags in any scheme.
        labels: name of each class, of IOB2.

    Returns:
        int64 (N,).

    Raises:
        InputError: at the first word whose type has no class.
    """
    ids = {label: index for index, label in enumerate(labels)}
    known = {label.partition("-")[2] for label in labels} | {""}
    for word, tag in enumerate(file.tags):
        if tag.partition("-")[2] not in known:
            raise InputError(
                f"{file.where(word)}: {tag!r} has a type that the model does not know; its labels are "
                f"{' '.join(labels)}. Correct the file, or train with this type."
            )
    sentences = zip(file.entities(), file.sentences(file.tags), strict=True)
    tags = [tag for found, words in sentences for tag in tags_of(found, len(words), "IOB2")]
    return np.fromiter((ids[tag] for tag in tags), np.int64, len(tags))
