"""Through the whole of `corpus`, raw text to shards: no token lost, whatever the documents (E7)."""

import collections
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_pytorch.corpus.__main__ import main
from bert_pytorch.shards.opening import open_shards
from bert_pytorch.tokenization.tokenizer import load_tokenizer
from tests.support.data import shared_data

SURROGATE, NUL = "\ud83d", "\0"
PIECES = st.one_of(
    st.sampled_from(
        [
            "Just this.", "word", "and so on " * 300, "... !!! ??? -- ,,, ;;;",
            "\U0001f600\U0001f468\u200d\U0001f469!",
            "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\u6211\u4eec" * 20,
            "\u0645\u0631\u062d\u0628\u0627. \u05e9\u05dc",
            "[MASK] [SEP]", "\t \u00a0\u2028\u0085\x0c\r\n", "Caf\u00e9 \u0130stanbul \u00df\ufb01. ", "x" * 400,
            SURROGATE, NUL, f"a{SURROGATE}b {NUL}c.", "e\u0301\u0327 \u1100\u1161\u11a8", "\n\n", "\n", " ",
            "Dr. No said 3.5 p.m. in the U.S. He left.", "\ufeff\u200b\u00ad", "\U000e0041\ue000\ufffe",
        ]
    ),
    st.text(max_size=40),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200),
)  # fmt: skip
DOCUMENTS = st.lists(st.lists(PIECES, max_size=6).map("".join), min_size=1, max_size=8)
KINDS = st.sampled_from(["pairs", "full_sentences", "doc_sentences"])


def build(folder: Path, documents: list[str], options: list[str], splitter: str = "nltk") -> int:
    """Run `format` and `encode` on documents of JSON lines; returns the exit code of the last one that ran."""
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    words = ["--input", folder / "text.jsonl", "--output", folder / "formatted", "--splitter", splitter]
    code = main(list(map(str, ["format", *words, "--processes", 1])))
    vocabulary = shared_data("vocab", "bert-base-uncased-vocab.txt")
    words = ["--input", folder / "formatted", "--output", folder / "encoded", "--vocab_file", vocabulary]
    return code or main(list(map(str, ["encode", *words, "--processes", 1, *options])))


def found_tokens(folder: Path, sep_id: int) -> collections.Counter[int]:
    """Count tokens outside random second segments and separators."""
    found: collections.Counter[int] = collections.Counter()
    (encoded,) = folder.glob("encoded/sequences_*")
    for part in ("train", "eval"):
        if not list(encoded.glob(f"{part}_*.hdf5")):
            continue
        shards = open_shards(encoded, part)  # type: ignore[arg-type]
        rows = shards.rows(np.arange(shards.num_sequences))
        for index, row in enumerate(rows.input_ids):
            start, end = int(rows.segment_b_starts[index]), int(rows.lengths[index])
            stop = start - 1 if rows.next_sentence_labels is not None and rows.next_sentence_labels[index] else end
            found.update(token for token in row[1:stop].tolist() if token != sep_id)
    return found


def readable(text: str) -> str:
    """What formatting makes of characters that no file can hold, and of white space that BERT takes for controls."""
    spaced = re.sub("[\0\x0b\x0c\x1c-\x1f\x85]", " ", text)
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in spaced)


@pytest.fixture(autouse=True)
def slow_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading tokie takes longer than to encode such documents; it is compared with this elsewhere."""
    monkeypatch.setenv("BERT_PYTORCH_TOKENIZER", "reference")


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(DOCUMENTS, KINDS, st.sampled_from([16, 64]), st.sampled_from(["nltk", "newline"]), st.integers(0, 99))
def test_no_token_is_lost_on_the_way(documents: list[str], kind: str, length: int, splitter: str, seed: int) -> None:
    tokenizer = load_tokenizer(shared_data("vocab", "bert-base-uncased-vocab.txt"))
    wanted = collections.Counter(tokenizer.encode_flat([readable(text) for text in documents]).ids.tolist())
    options = ["--sequences", kind, "--max_seq_len", str(length), "--seed", str(seed), "--eval_fraction", "0"]
    with tempfile.TemporaryDirectory() as folder:
        code = build(Path(folder), documents, options, splitter)
        if not wanted:
            assert code == 1  # told: there is no word in this text
            return
        assert code == 0
        assert found_tokens(Path(folder), tokenizer.vocabulary.sep_id) == wanted


def test_a_line_of_ten_megabytes_is_kept_whole(tmp_path: Path) -> None:
    words = [f"{'supercalifragilistic'[: 1 + index % 20]}{index % 1000}" for index in range(800_000)]
    text = " ".join(words)
    assert len(text) > 10_000_000
    assert build(tmp_path, [text, "Another document.", "And one more."], ["--max_seq_len", "512"]) == 0
    tokenizer = load_tokenizer(shared_data("vocab", "bert-base-uncased-vocab.txt"))
    wanted = collections.Counter(tokenizer.encode_flat([text, "Another document.", "And one more."]).ids.tolist())
    assert found_tokens(tmp_path, tokenizer.vocabulary.sep_id) == wanted
