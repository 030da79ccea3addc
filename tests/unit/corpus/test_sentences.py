"""Sentence splitting: nothing lost, lines and paragraphs understood, parameters learnt alike every time."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize.punkt import PunktSentenceTokenizer

from bert_pytorch.corpus.sentences import Newlines, load_splitter, prepare_splitter, split_document
from tests.support.data import REPOSITORY, real_texts

WRAPPED = "The general went to the\nriver. It was cold and\nthe men were tired of it.\n\nThen they\nslept."
VERSES = "one thing .\nanother thing ?\nno end here\na third .\n"


def punkt(text: str) -> list[str]:
    return list(PunktSentenceTokenizer().tokenize(text))


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=200), st.sampled_from(["auto", "break", "join"]))
def test_no_character_but_white_space_is_lost_and_no_sentence_is_empty(text: str, newlines: Newlines) -> None:
    sentences = split_document(text, punkt, newlines)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in sentences)


def test_wrapped_text_is_joined_and_lines_that_end_sentences_are_not() -> None:
    assert split_document(WRAPPED, punkt, "auto") == [
        "The general went to the river.",
        "It was cold and the men were tired of it.",
        "Then they slept.",
    ]
    assert split_document(VERSES, punkt, "auto") == ["one thing .", "another thing ?", "no end here", "a third ."]
    assert len(split_document(WRAPPED, punkt, "break")) == 6
    assert split_document("a b\nc d", punkt, "join") == ["a b c d"]


def test_long_lines_are_paragraphs() -> None:
    paragraph = "word " * 60
    assert split_document(f"{paragraph}\n{paragraph}", punkt, "auto") == [paragraph.strip()] * 2


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


def test_learnt_parameters_split_like_the_ones_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_pytorch.corpus.sentences._has_pretrained", lambda language: False)
    texts = real_texts("inaugural", 10)
    from nltk.tokenize.punkt import PunktTrainer

    trainer = PunktTrainer()
    for text in texts:
        trainer.train(text, finalize=False)
    trainer.finalize_training()
    reference = PunktSentenceTokenizer(trainer.get_params())
    assert prepare_splitter(tmp_path, "english", lambda: texts) == "learnt from a sample of this corpus"
    splitter = load_splitter(tmp_path)
    for text in texts:
        assert splitter(text) == list(reference.tokenize(text))


def test_a_slow_machine_splits_long_paragraphs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_pytorch.corpus.sentences._has_pretrained", lambda language: False)
    monkeypatch.setattr("nltk.redos.DEFAULT_TIMEOUT", 0.001)  # stands for 5 s of a busy machine
    text = "It rained all day long. Nobody went out! " * 20000
    prepare_splitter(tmp_path, "english", lambda: [text[:200_000]])
    load_splitter.cache_clear()
    monkeypatch.setattr("nltk.redos.DEFAULT_TIMEOUT", 0.001)
    assert " ".join(load_splitter(tmp_path)(text)) == text.strip()


def test_parameters_in_the_folder_are_used_again_and_their_origin_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bert_pytorch.corpus.sentences._has_pretrained", lambda language: False)
    prepare_splitter(tmp_path, "english", lambda: ["A sentence. Another one."])
    with caplog.at_level(logging.INFO):
        prepare_splitter(tmp_path, "english", pytest.fail)
    assert "learnt from a sample" in caplog.text


def test_pretrained_parameters_are_used_where_nltk_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bert_pytorch.corpus.sentences._has_pretrained", lambda language: True)
    trained = PunktSentenceTokenizer("Mr. Smith met Mr. Jones. " * 50)

    class Installed:
        def __init__(self, language: str) -> None:
            self._params = trained._params

    monkeypatch.setattr("bert_pytorch.corpus.sentences.PunktTokenizer", Installed)
    assert "pretrained parameters for german" in prepare_splitter(tmp_path, "german", pytest.fail)
    assert load_splitter(tmp_path)("He saw Mr. Miller. Then left.") == ["He saw Mr. Miller.", "Then left."]
