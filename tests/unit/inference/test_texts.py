"""Where texts come from, and every source that cannot be read."""

import io
import sys
from pathlib import Path

import pytest

from bert_pytorch.errors import InputError
from bert_pytorch.inference.predicting import blocks_of
from bert_pytorch.inference.texts import Text, TextsConfig, read_texts


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def read(path: Path, *, pairs: bool = False) -> list[tuple[str, str | None]]:
    return [text[:2] for text in read_texts(TextsConfig(input_file=(path,)), pairs=pairs)]


def test_each_line_is_a_text_the_empty_ones_too(tmp_path: Path) -> None:
    path = write(tmp_path, "texts.txt", "\ufeffone\r\n\n zwei \u2028 \x85drei\nvier".encode())
    assert read(path) == [("one", None), ("", None), (" zwei \u2028 \x85drei", None), ("vier", None)]


def test_files_follow_one_another_and_say_where_a_text_stands(tmp_path: Path) -> None:
    paths = (write(tmp_path, "a.txt", b"one\n"), write(tmp_path, "b.jsonl", b'{"text": "two", "id": 7}\n'))
    assert list(read_texts(TextsConfig(input_file=paths))) == [
        Text("one", None, f"{paths[0]}, line 1"),
        Text("two", None, f"{paths[1]}, line 1"),
    ]


def test_pairs_are_apart_by_a_tab_or_two_keys(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a.tsv", b"one\ttwo\tthree\n"), pairs=True) == [("one", "two\tthree")]
    lines = b'{"text": "one", "text_pair": "two"}\n'
    assert read(write(tmp_path, "a.jsonl", lines), pairs=True) == [("one", "two")]
    assert read(write(tmp_path, "a.jsonl", lines)) == [("one", None)]


BAD = {
    "is empty: give texts": ("a.txt", b"", False),
    "line 2: it is not UTF-8": ("a.txt", b"one\nM\xfcnchen\n", False),
    "line 2: found no tab": ("a.txt", b"one\ttwo\nthree\n", True),
    "line 1: it is not JSON": ("a.jsonl", b"one\n", False),
    "line 1: found '[1]'": ("a.jsonl", b"[1]\n", False),
    'such as {"text": "…"}': ("a.jsonl", b'{"text": 1}\n', False),
    'such as {"text": "…", "text_pair": "…"}': ("a.jsonl", b'{"text": "one"}\n', True),
}


@pytest.mark.parametrize("told", BAD)
def test_a_source_that_cannot_be_read_is_told_with_its_line(told: str, tmp_path: Path) -> None:
    name, content, pairs = BAD[told]
    path = write(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        read(path, pairs=pairs)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)


def test_two_sources_at_once_are_refused() -> None:
    config = TextsConfig(texts=("one",), input_file=(Path("a.txt"),))
    assert list(config.combination_problems()) == [
        "found texts on the command line and --input_file as well; keep one of them."
    ]


def test_blocks_are_bounded_by_texts_and_characters() -> None:
    short = [Text("a", None, "")] * 17
    assert [len(block) for block in blocks_of(short, 8)] == [8, 8, 1]
    long = [Text("a" * (1 << 19), "b" * (1 << 18), "")] * 5
    assert [len(block) for block in blocks_of(long, 8)] == [2, 2, 1]


def test_a_pipe_is_read_as_far_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO(b"one\n" * 10)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    texts = read_texts(TextsConfig())
    assert next(texts) == Text("one", None, "standard input, line 1")
    assert len(list(texts)) == 9


def test_what_no_text_file_can_hold_becomes_a_replacement_character(tmp_path: Path) -> None:
    assert [text.text for text in read_texts(TextsConfig(texts=("a\udcff",)))] == ["a\ufffd"]
    assert read(write(tmp_path, "a.jsonl", b'{"text": "\\ud800 \\ud83d\\ude00"}\n')) == [("\ufffd \U0001f600", None)]
