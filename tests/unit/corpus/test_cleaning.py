"""Cleaning: what each step does, that no word is lost, and what without it is refused."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.normalizers import BertNormalizer

from bert_pytorch.corpus.cleaning import DEFAULT_STEPS, clean
from tests.unit.corpus.conftest import AWKWARD_DOCUMENTS, Tool

STEPS = ("characters", "lines", "control", "invisible", "nfc")
AWKWARD = (
    "ab \t\n\r\x0b\x0c\x00\x01\x1c\x1f\x7f\x85\x92\xad\xe9\u0301\u0915\u094d"
    "\u200b\u200c\u200d\u2028\u2029\u2060\ufeff\ufffd\ud800\udc00\U0001f600"
)
texts = st.text(st.one_of(st.sampled_from(AWKWARD), st.characters(categories=None)))
bert = BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)


def words(text: str) -> list[str]:
    """The words that BERT's own tokenizer sees; NUL parts them here, and half of a surrogate pair is U+FFFD."""
    encodable = "".join(" " if c == "\0" else "\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    spaced = "".join(" " if c in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029" else c for c in encodable)
    return bert.normalize_str(spaced).split()


@given(texts, st.lists(st.sampled_from(STEPS), unique=True))
def test_cleaning_twice_is_cleaning_once(text: str, steps: list[str]) -> None:
    once = clean(text, tuple(steps)).text  # type: ignore[arg-type]
    assert clean(once, tuple(steps)) == (once, 0, 0)  # type: ignore[arg-type]


@given(texts)
def test_no_word_is_lost_and_the_rest_stays_as_it_is(text: str) -> None:
    cleaned = clean(text)
    assert words(cleaned.text) == words(text)
    assert cleaned.nul == text.count("\0")
    assert cleaned.surrogates == sum("\ud800" <= character <= "\udfff" for character in text)
    cleaned.text.encode()
    left = [c for c in cleaned.text if unicodedata.category(c) == "Cc" and c not in "\t\n\x0b\x0c\x1c\x1d\x1e\x1f"]
    assert not left
    assert clean(text, ()).text == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\r\nb\rc\x85d\u2028e\u2029f", "a\nb\nc\nd\ne\n\nf"),
        ("so\xadft\u200b \ufeffmark\u2060", "soft mark"),
        ("\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e", "\U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u062e"),
        ("a\0b \ud83d\ude00 \ud83d", "a b \ufffd\ufffd \ufffd"),
        ("e\u0301", "e\u0301"),
        ("bell\x07 del\x7f", "bell del"),
        ("It\xe2\x80\x99s", "It\xe2s"),  # decoded wrongly before: no guess, only controls go
    ],
)
def test_what_the_default_steps_do(text: str, wanted: str) -> None:
    assert clean(text, DEFAULT_STEPS).text == wanted


def test_nfc_composes() -> None:
    assert clean("e\u0301", ("nfc",)).text == "\xe9"


def test_what_is_replaced_is_told_and_without_cleaning_refused(
    tool: Tool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [*AWKWARD_DOCUMENTS.values(), "a\0b\0c.", "half \ud83d.", "x\u00adyz\x07"]
    path, out = tmp_path / "x.jsonl", tmp_path / "o"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    command = ("format", "--input", path, "--processes", 1, "--newlines", "break", "--output")
    said = tool(*command, out)
    assert said.code == 0, said.err
    assert "2 NUL characters became spaces, 1 halves of surrogate pairs became U+FFFD" in caplog.text
    counts = json.loads((out / "formatted.json").read_text())["counts"]
    assert (counts["nul_characters"], counts["half_surrogates"], counts["blank_documents"]) == (2, 1, 2)
    text = "".join(file.read_text(encoding="utf-8") for file in out.glob("formatted_*.txt"))
    assert "".join(text.split()) == "".join("".join(clean(text).text for text in texts).split())
    assert text.endswith("a b c.\n\nhalf \ufffd.\n\nxyz\n")
    for number, flags in enumerate((["--no-clean"], ["--clean_steps", "lines"])):
        said = tool(*command, tmp_path / f"no{number}", *flags)
        assert said.code == 1
        assert "x.jsonl: line 14 holds a NUL character" in said.err
    path.write_text(json.dumps({"text": "x\u00adyz\x07"}))
    assert tool(*command, tmp_path / "kept", "--no-clean").code == 0
    assert (tmp_path / "kept" / "formatted_00000.txt").read_text() == "x\u00adyz\x07\n"
