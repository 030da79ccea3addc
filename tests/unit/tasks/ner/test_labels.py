"""Labels: discovered in a file or named, and each word's class."""

from pathlib import Path

import pytest

from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.tasks.ner.conll import read_conll
from bert_pytorch.tasks.ner.labels import checked_labels, found_types, label_ids, labels_of_types, types_of_labels


def read(folder: Path, text: str):
    path = folder / "file.conll"
    path.write_text(text)
    return read_conll(path)


def test_labels_are_iob2_of_the_types_found(tmp_path: Path) -> None:
    file = read(tmp_path, "a S-PER\nb O\n\nc B-LOC\nd E-LOC\n")
    assert labels_of_types(found_types(file)) == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.mark.parametrize(
    "text", ["a I-PER\nb B-PER\nc I-PER\n", "a B-PER\nb B-PER\nc I-PER\n", "a S-PER\nb B-PER\nc E-PER\n"]
)
def test_a_words_class_does_not_depend_on_the_files_scheme(text: str, tmp_path: Path) -> None:
    assert label_ids(read(tmp_path, text), ("O", "B-PER", "I-PER")).tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    ("given", "types"),
    [
        (["O", "B-MISC", "I-MISC", "B-PER", "I-PER"], ("MISC", "PER")),
        (["PER", "LOC"], ("PER", "LOC")),
        (["S-PER", "E-PER", "B-cell"], ("PER", "cell")),
        (["B-cell", "T-cell"], ("B-cell", "T-cell")),
    ],
)
def test_named_labels_are_tags_or_types(given: list[str], types: tuple[str, ...]) -> None:
    assert types_of_labels(given) == types


def test_what_cannot_be_labelled_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no type of entity"):
        types_of_labels(["O"])
    with pytest.raises(InputError, match="all 2 tags are O"):
        found_types(read(tmp_path, "a O\nb O\n"))
    with pytest.raises(InputError, match=r"line 3: the model has no label for 'B-LOC'; its labels are O B-PER I-PER"):
        label_ids(read(tmp_path, "a B-PER\n\nb B-LOC\n"), ("O", "B-PER", "I-PER"))


def test_a_models_own_labels_are_taken_in_any_order_and_scheme(tmp_path: Path) -> None:
    labels = ("B-PER", "S-PER", "O", "E-PER", "I-PER")
    assert checked_labels(labels, ()) == checked_labels(labels, ["PER"]) == labels
    assert label_ids(read(tmp_path, "a I-PER\nb B-PER\nc I-PER\nd O\n"), labels).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("labels", "wanted", "told"),
    [
        (("LABEL_0", "LABEL_1"), (), "the model: its labels are LABEL_0 LABEL_1; wanted O, and B-"),
        (("B-PER", "I-PER"), (), "wanted O"),
        (("O", "B-PER", "I-PER"), ("LOC",), "--labels: found LOC, the model's are O B-PER I-PER. Leave it out."),
    ],
)
def test_a_model_with_other_labels_is_refused(labels, wanted, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked_labels(labels, wanted)
    assert told in str(caught.value)
