"""Ways to tag entities: IOB1, IOB2 and BIOES; which one a file follows; and the entities that any tags mean.

Inside, everything is IOB2: it has the fewest tags of those that keep neighbours of one type apart, and most published
models have learnt it.  Tags are read as conlleval reads them, under which every sequence of tags means some entities,
a model's that follow no scheme too.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

OUTSIDE = "O"
PREFIXES = "BIES"

Scheme = Literal["IOB2", "IOB1", "BIOES"]
SCHEMES: tuple[Scheme, ...] = ("IOB2", "IOB1", "BIOES")
"""In this order they are tried: tags without any entity follow all of them."""


class Entity(NamedTuple):
    """Words of one sentence that name one thing."""

    start: int
    """Its first word."""
    stop: int
    """Past its last word."""
    kind: str
    """Type, such as PER."""


class Deviation(NamedTuple):
    """A tag that its scheme would write otherwise."""

    sentence: int
    word: int
    """In the sentence."""
    wanted: str


def split_tag(tag: str) -> tuple[str, str] | None:
    """Return prefix and type of a tag, `("O", "")` outside of entities; None for what is no tag."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = tag.partition("-")
    return (prefix, kind) if dash and kind and len(prefix) == 1 and prefix in PREFIXES else None


def entities_of(tags: Iterable[str]) -> list[Entity]:
    """Return the entities of a sentence, by conlleval's rules (Tjong Kim Sang & De Meulder 2003).

    An entity ends before `O`, another type, `B` or `S`, and after `E` or `S`.

    Raises:
        ValueError: for what `split_tag` knows as no tag.
    """
    found: list[Entity] = []
    start, before, kind_before = 0, OUTSIDE, ""
    word = -1
    for word, tag in enumerate(tags):
        parts = split_tag(tag)
        if parts is None:
            raise ValueError(f"{tag!r} is no tag")
        prefix, kind = parts
        goes_on = before in "BI" and prefix in "IE" and kind == kind_before
        if not goes_on and before != OUTSIDE:
            found.append(Entity(start, word, kind_before))
        if not goes_on:
            start = word
        before, kind_before = prefix, kind
    if before != OUTSIDE:
        found.append(Entity(start, word + 1, kind_before))
    return found


def tags_of(entities: Iterable[Entity], length: int, scheme: Scheme) -> list[str]:
    """Return the tags of a sentence of `length` words, in which `entities` are in order and do not overlap."""
    tags = [OUTSIDE] * length
    neighbour = Entity(0, -1, "")
    for entity in entities:
        size = entity.stop - entity.start
        match scheme:
            case "IOB2":
                prefixes = "B" + "I" * (size - 1)
            case "IOB1":  # B only where two would run into one
                touches = neighbour.stop == entity.start and neighbour.kind == entity.kind
                prefixes = ("B" if touches else "I") + "I" * (size - 1)
            case "BIOES":
                prefixes = "S" if size == 1 else "B" + "I" * (size - 2) + "E"
        tags[entity.start : entity.stop] = [f"{prefix}-{entity.kind}" for prefix in prefixes]
        neighbour = entity
    return tags


def deviations(sentences: Sequence[Sequence[str]], scheme: Scheme) -> list[Deviation]:
    """Return the tags that `scheme` would write otherwise for the same entities; none: the sentences follow it."""
    return [
        Deviation(number, word, wanted)
        for number, tags in enumerate(sentences)
        for word, (found, wanted) in enumerate(zip(tags, tags_of(entities_of(tags), len(tags), scheme), strict=True))
        if found != wanted
    ]


def nearest_scheme(sentences: Sequence[Sequence[str]]) -> tuple[Scheme, list[Deviation]]:
    """Return the scheme that the tags of sentences follow, or the nearest one with what deviates from it."""
    fits = [(scheme, deviations(sentences, scheme)) for scheme in SCHEMES]
    return min(fits, key=lambda fit: len(fit[1]))
