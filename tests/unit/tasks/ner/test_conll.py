"""CoNLL files: what is read, what is written again, and every file that is none."""

import logging
from pathlib import Path

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.tasks.ner.conll import read_conll, write_predictions
from bert_pytorch.tasks.ner.schemes import Entity
from tests.support.data import shared_data


def write(folder: Path, text: str) -> Path:
    path = folder / "file.conll"
    path.write_bytes(text.encode())
    return path


def test_a_real_file_is_its_words_tags_and_sentences() -> None:
    path = shared_data("ner", "conll2003", "eng.testa")
    words, tags, sentences = [], [], [0]
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        rows = [line.split(" ") for line in block.split("\n") if line and not line.startswith("-DOCSTART-")]
        words += [row[0] for row in rows]
        tags += [row[3] for row in rows]
        sentences += [len(words)] * bool(rows)
    file = read_conll(path)
    assert (list(file.words), list(file.tags), list(file.starts)) == (words, tags, sentences)


FORMS = {
    "two columns, tabs": "EU\tI-ORG\nrejects\tO\n\nGerman\tI-MISC\n",
    "four columns, spaces": "EU NNP I-NP I-ORG\nrejects VBZ I-VP O\n\nGerman JJ I-NP I-MISC\n",
    "runs of spaces": "EU   NNP  I-ORG\nrejects VBZ    O  \n\n\nGerman JJ I-MISC",
    "document starts": "-DOCSTART- -X- O I-ORG\n\nEU NNP x I-ORG\nrejects V x O\n-DOCSTART-\nGerman JJ x I-MISC\n",
    "Windows": "\ufeffEU I-ORG\r\nrejects O\r\n \t\r\nGerman I-MISC\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_is_read_alike(form: str, tmp_path: Path) -> None:
    file = read_conll(write(tmp_path, FORMS[form]))
    assert file.words == ("EU", "rejects", "German")
    assert file.tags == ("I-ORG", "O", "I-MISC")
    assert file.starts == (0, 2, 3)
    assert file.scheme == "IOB1"


def test_words_may_be_what_elsewhere_separates(tmp_path: Path) -> None:
    words = ("a\u00a0b", "\u3000", "\u2028", "\x85", "#", "\x0c")
    file = read_conll(write(tmp_path, "".join(f"{word} O\n" for word in words)))
    assert file.words == words
    file = read_conll(write(tmp_path, "New York\tO\n\tO\n"))
    assert file.words == ("New York", "")


def test_tags_that_deviate_are_told_and_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "a B-PER\nb I-PER\n\nc B-PER\n\nd I-PER\n")
    with caplog.at_level(logging.WARNING):
        file = read_conll(path)
    assert file.scheme == "IOB2"
    assert file.entities()[2] == [Entity(0, 1, "PER")]
    assert "1 of 4 tags are not as IOB2" in caplog.text
    assert "line 6 has 'I-PER' for 'B-PER'" in caplog.text


BAD = {
    "there is no word": "\n\n-DOCSTART- -X- O O\n",
    "line 2: found 3 columns, wanted 2 as in line 1 (and 1 more": "a O\nb x O\n\nc x y O\n",
    "line 3: found 1 column, wanted 2 as in line 1. Every": "a\tO\n\nb O\n",
    "line 1: found one column, wanted two": "Paris\n",
    "line 2: 'X-PER' is no tag of IOB1, IOB2 or BIOES": "a B-PER\nb X-PER\n",
    "line 1: '_' is no tag": "1 Paris _\n",
}


@pytest.mark.parametrize("told", BAD)
def test_a_file_of_another_kind_is_told_in_one_message(told: str, tmp_path: Path) -> None:
    path = write(tmp_path, BAD[told])
    with pytest.raises(InputError) as caught:
        read_conll(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


def test_bytes_that_are_no_utf8_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.conll"
    path.write_bytes(b"a O\nM\xfcnchen B-LOC\n")
    with pytest.raises(InputError, match="line 2: it is not UTF-8"):
        read_conll(path)


@pytest.mark.parametrize("parts", [("conll2003", "eng.testa"), ("ncbi-disease", "devel.tsv")])
def test_a_real_file_written_with_its_own_entities_repeats_its_tags(parts, tmp_path: Path) -> None:
    file = read_conll(shared_data("ner", *parts))
    path = tmp_path / "predictions.conll"
    write_predictions(path, file, file.entities())
    before, after = (source.read_text(encoding="utf-8").split("\n") for source in (file.path, path))
    assert len([line for line in after if line]) == len([line for line in before if line])
    for old, new in zip(before, after, strict=False):
        assert new == (f"{old}{file.separator}{old.split(file.separator)[-1]}" if old else "")
    again = read_conll(path)
    assert (again.words, again.tags, again.starts) == (file.words, file.tags, file.starts)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("a x S-PER\nb x S-PER\nc x O\n", "a x S-PER B-LOC\nb x S-PER E-LOC\nc x O S-PER\n"),
        ("a\tB-PER\nb\tB-PER\nc\tO\n", "a\tB-PER\tB-LOC\nb\tB-PER\tI-LOC\nc\tO\tB-PER\n"),
        (
            "-DOCSTART- O \n \na I-LOC\nb B-LOC\r\nc I-PER\n",
            "-DOCSTART- O O\n\na I-LOC I-LOC\nb B-LOC I-LOC\nc I-PER I-PER\n",
        ),
    ],
)
def test_predictions_are_written_in_the_files_own_scheme(given: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.conll"
    write_predictions(path, read_conll(write(tmp_path, given)), [[Entity(0, 2, "LOC"), Entity(2, 3, "PER")]])
    assert path.read_text() == wanted
