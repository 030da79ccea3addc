"""Sentence splitting: nothing lost, lines and paragraphs understood, parameters learnt alike every time."""

import itertools
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

from bert_pytorch.corpus import punkt, sentences
from bert_pytorch.corpus.formatting import FormatConfig
from bert_pytorch.corpus.sentences import Newlines, Splitter, load_splitter, prepare_splitter, split_document
from bert_pytorch.errors import InputError, MissingDependencyError
from tests.support.data import REPOSITORY, real_texts

WRAPPED = "The general went to the\nriver. It was cold and\nthe men were tired of it.\n\nThen they\nslept."
VERSES = "one thing .\nanother thing ?\nno end here\na third .\n"


untrained = punkt.FastPunkt(PunktParameters()).split


def sentences_of(text: str, splitter: Splitter, newlines: Newlines) -> list[str]:
    return list(split_document(text, splitter, newlines))


@pytest.fixture
def no_nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punkt, "pretrained", lambda language: None)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=200), st.sampled_from(["auto", "break", "join"]))
def test_no_character_but_white_space_is_lost_and_no_sentence_is_empty(text: str, newlines: Newlines) -> None:
    found = sentences_of(text, untrained, newlines)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in found)


def at_once(text: str, newlines: Newlines) -> list[str]:
    """What `split_document` gives, from lists of the whole document."""
    lines = [line.strip() for line in text.split("\n")]
    inner = [line for line, following in itertools.pairwise(lines) if line and following]
    wrapped = max(map(len, lines)) <= 120 and sum(line.endswith((".", "!")) for line in inner) < len(inner) / 2
    join = newlines == "join" or (newlines == "auto" and wrapped)
    paragraphs = re.split(r"\n\s*\n", text) if join else lines
    return [sentence for paragraph in paragraphs for sentence in untrained(" ".join(paragraph.split()))]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "B.", "c!", "\u4f60", " ", "\x1f", "\u3000", "\n", "\n\n", "d" * 121])).map("".join),
    st.sampled_from(["auto", "break", "join"]),
    st.integers(1, 9),
)
def test_large_documents_are_split_as_if_at_once(text: str, newlines: Newlines, window: int) -> None:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(sentences, "_WINDOW", window)
        assert sentences_of(text, untrained, newlines) == at_once(text, newlines)
        assert " ".join(sentences.single_spaced(text)) == " ".join(text.split())


def test_wrapped_text_is_joined_and_lines_that_end_sentences_are_not() -> None:
    assert sentences_of(WRAPPED, untrained, "auto") == [
        "The general went to the river.",
        "It was cold and the men were tired of it.",
        "Then they slept.",
    ]
    assert sentences_of(VERSES, untrained, "auto") == ["one thing .", "another thing ?", "no end here", "a third ."]
    assert len(sentences_of(WRAPPED, untrained, "break")) == 6
    assert sentences_of("a b\nc d", untrained, "join") == ["a b c d"]


def test_long_lines_are_paragraphs() -> None:
    paragraph = "word " * 60
    assert sentences_of(f"{paragraph}\n{paragraph}", untrained, "auto") == [paragraph.strip()] * 2


LEARN = """
import sys
from pathlib import Path
from bert_pytorch.corpus.sentences import prepare_splitter
from tests.support.data import real_texts
prepare_splitter(Path(sys.argv[1]), "english", lambda: real_texts("inaugural", 10))
"""


def without_nltk_data(tmp_path: Path, **more: str) -> dict[str, str]:
    empty = {"NLTK_DATA": str(tmp_path / "none"), "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    return os.environ | empty | more


def test_learnt_parameters_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    real_texts("inaugural", 1)
    contents = set()
    for seed in ("1", "2"):
        folder = tmp_path / seed
        command = [sys.executable, "-c", LEARN, str(folder)]
        subprocess.run(command, env=without_nltk_data(tmp_path, PYTHONHASHSEED=seed), cwd=REPOSITORY, check=True)
        contents.add((folder / "punkt.json").read_bytes())
    assert len(contents) == 1


@pytest.mark.usefixtures("no_nltk_data")
def test_learnt_parameters_split_like_the_ones_in_memory(tmp_path: Path) -> None:
    from nltk.tokenize.punkt import PunktTrainer

    texts = real_texts("inaugural", 10)
    trainer = PunktTrainer()
    for text in texts:
        trainer.train(text, finalize=False)
    trainer.finalize_training()
    reference = PunktSentenceTokenizer(trainer.get_params())
    assert "learnt from a sample of this corpus" in prepare_splitter(tmp_path, "english", lambda: texts)
    splitter = load_splitter(tmp_path)
    for text in texts:
        words = " ".join(text.split())
        assert splitter(words) == list(reference.tokenize(words))


@pytest.mark.usefixtures("no_nltk_data")
def test_a_slow_machine_splits_long_paragraphs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nltk.redos.DEFAULT_TIMEOUT", 0.001)  # stands for 5 s of a busy machine
    text = "It rained all day long. Nobody went out! Not J. R. R. then. " * 20000
    prepare_splitter(tmp_path, "english", lambda: [text[:200_000]])
    load_splitter.cache_clear()
    monkeypatch.setattr("nltk.redos.DEFAULT_TIMEOUT", 0.001)
    assert " ".join(load_splitter(tmp_path)(text.strip())) == text.strip()


@pytest.mark.usefixtures("no_nltk_data")
def test_parameters_in_the_folder_are_used_again_and_their_origin_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_splitter(tmp_path, "english", lambda: ["A sentence. Another one."])
    with caplog.at_level(logging.INFO):
        prepare_splitter(tmp_path, "english", pytest.fail)
    assert "learnt from a sample" in caplog.text


def test_pretrained_parameters_are_used_where_nltk_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = PunktSentenceTokenizer("Mr. Smith met Mr. Jones. " * 50)
    monkeypatch.setattr(punkt, "pretrained", lambda language: trained._params)
    assert "pretrained parameters for german" in prepare_splitter(tmp_path, "german", pytest.fail)
    assert load_splitter(tmp_path)("He saw Mr. Miller. Then left.") == ["He saw Mr. Miller.", "Then left."]


@pytest.mark.usefixtures("no_nltk_data")
def test_parameters_of_another_build_can_be_named(tmp_path: Path) -> None:
    prepare_splitter(tmp_path / "a", "english", lambda: ["Mr. Smith met Mr. Jones. " * 50])
    learnt = tmp_path / "a" / "punkt.json"
    prepare_splitter(tmp_path / "b", "english", pytest.fail, parameters_file=learnt)
    assert load_splitter(tmp_path / "b")("He saw Mr. Miller. Then left.") == ["He saw Mr. Miller.", "Then left."]
    for content in ("[1]", "{}", '{"abbreviations": [[]]}', "\0"):
        learnt.write_text(content)
        with pytest.raises(InputError, match=r"no parameters of Punkt .* Name a punkt\.json"):
            prepare_splitter(tmp_path / "c", "english", pytest.fail, parameters_file=learnt)


def test_with_the_newline_splitter_every_line_is_a_sentence(tmp_path: Path) -> None:
    assert "every line" in prepare_splitter(tmp_path, "english", pytest.fail, "newline")
    lines = sentences_of(" One.  Two! \n\n three\n", load_splitter(tmp_path, "newline"), "break")
    assert lines == ["One. Two!", "three"]
    impossible = FormatConfig(input=(tmp_path,), output=tmp_path, splitter="newline", newlines="join")
    assert any("--newlines join would join them" in problem for problem in impossible.combination_problems())


def nupunkt(folder: Path) -> Splitter:
    pytest.importorskip("nupunkt", reason="nupunkt is an extra (requirements-extras.txt)")
    prepare_splitter(folder, "english", pytest.fail, "nupunkt")
    return load_splitter(folder, "nupunkt")


def test_nupunkt_loses_nothing_and_knows_abbreviations(tmp_path: Path) -> None:
    split = nupunkt(tmp_path)
    for text in real_texts("inaugural", 5):
        sentences = sentences_of(text, split, "auto")
        assert "".join(sentences).replace(" ", "") == "".join(text.split())
    assert split("See Smith v. Jones, 5 U.S. 137 (1803). It held.") == [
        "See Smith v. Jones, 5 U.S. 137 (1803).",
        "It held.",
    ]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_nupunkt_loses_nothing_of_any_text(text: str) -> None:
    sentences = sentences_of(text, nupunkt(Path()), "auto")
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in sentences)


def test_without_nupunkt_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nupunkt", None)
    with pytest.raises(MissingDependencyError, match=r"pip install -r requirements-extras\.txt"):
        prepare_splitter(tmp_path, "english", pytest.fail, "nupunkt")
