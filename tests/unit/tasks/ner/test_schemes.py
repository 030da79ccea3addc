"""Entities that tags mean, against seqeval (which is held to conlleval) and by hand; schemes back and forth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bert_pytorch.tasks.ner.conll import read_conll
from bert_pytorch.tasks.ner.schemes import (
    SCHEMES,
    Entity,
    deviations,
    entities_of,
    nearest_scheme,
    split_tag,
    tags_of,
)
from tests.support.data import shared_data

ANY_TAGS = st.lists(st.sampled_from(["O", *(f"{p}-{kind}" for p in "BIES" for kind in ("PER", "LOC"))]), max_size=12)

HAND_WORKED = {
    "IOB1 neighbours": ("I-LOC I-LOC B-LOC O", [(0, 2, "LOC"), (2, 3, "LOC")]),
    "another type": ("B-PER I-LOC", [(0, 1, "PER"), (1, 2, "LOC")]),
    "I after O": ("O I-PER", [(1, 2, "PER")]),
    "BIOES": ("S-PER S-PER B-LOC I-LOC E-LOC", [(0, 1, "PER"), (1, 2, "PER"), (2, 5, "LOC")]),
    "I after E": ("B-PER E-PER I-PER", [(0, 2, "PER"), (2, 3, "PER")]),
    "nothing": ("O O", []),
}


@pytest.mark.parametrize("case", HAND_WORKED)
def test_entities_are_those_found_by_hand(case: str) -> None:
    tags, wanted = HAND_WORKED[case]
    assert entities_of(tags.split()) == wanted


@given(ANY_TAGS)
def test_any_tags_mean_the_entities_that_seqeval_finds(tags: list[str]) -> None:
    assert entities_of(tags) == [Entity(start, stop + 1, kind) for kind, start, stop in get_entities(tags)]


@pytest.mark.parametrize("scheme", SCHEMES)
@given(tags=ANY_TAGS)
def test_writing_entities_in_any_scheme_and_reading_them_gives_them_back(scheme, tags: list[str]) -> None:
    entities = entities_of(tags)
    written = tags_of(entities, len(tags), scheme)
    assert entities_of(written) == entities
    assert not deviations([written], scheme)


def test_each_scheme_writes_neighbours_of_one_type_apart() -> None:
    entities = [Entity(0, 1, "LOC"), Entity(1, 4, "LOC"), Entity(5, 6, "PER")]
    assert tags_of(entities, 7, "IOB2") == "B-LOC B-LOC I-LOC I-LOC O B-PER O".split()
    assert tags_of(entities, 7, "IOB1") == "I-LOC B-LOC I-LOC I-LOC O I-PER O".split()
    assert tags_of(entities, 7, "BIOES") == "S-LOC B-LOC I-LOC E-LOC O S-PER O".split()


@pytest.mark.parametrize(
    ("parts", "scheme", "deviating"),
    [
        (("conll2003", "eng.testa"), "IOB1", 0),
        (("conll2003", "eng.train"), "IOB1", 2),
        (("ncbi-disease", "devel.tsv"), "IOB2", 0),
    ],
)
def test_real_files_are_recognised(parts, scheme, deviating) -> None:
    file = read_conll(shared_data("ner", *parts))
    assert file.scheme == scheme
    assert len(deviations(file.sentences(file.tags), file.scheme)) == deviating


def test_a_real_file_in_another_scheme_is_recognised_as_that() -> None:
    file = read_conll(shared_data("ner", "conll2003", "eng.testa"))
    lengths = map(len, file.sentences(file.tags))
    sentences = list(zip(file.entities(), lengths, strict=True))
    for scheme in SCHEMES:
        assert nearest_scheme([tags_of(entities, n, scheme) for entities, n in sentences]) == (scheme, [])


def test_a_deviation_names_its_place_and_what_was_wanted() -> None:
    scheme, found = nearest_scheme([["B-PER", "I-PER"], ["O", "I-PER"], ["B-LOC"]])
    assert scheme == "IOB2"
    assert found == [(1, 1, "B-PER")]


@pytest.mark.parametrize("tag", ["", "o", "PER", "B-", "-PER", "X-PER", "BI-PER", "B_PER", "U-PER"])
def test_what_is_no_tag_is_told_apart(tag: str) -> None:
    assert split_tag(tag) is None
    with pytest.raises(ValueError, match="no tag"):
        entities_of(["O", tag])


def test_a_type_may_hold_dashes() -> None:
    assert entities_of(["B-cell-line", "I-cell-line"]) == [(0, 2, "cell-line")]
