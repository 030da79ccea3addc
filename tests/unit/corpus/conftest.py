"""A small corpus of real and awkward documents, and the tool as a user calls it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bert_pytorch.corpus.__main__ import main
from tests.support.data import shared_data


class Said(NamedTuple):
    """How a call of the tool ended."""

    code: int
    out: str
    err: str


Tool = Callable[..., Said]

AWKWARD_DOCUMENTS = {
    "one_sentence": "Just this.",
    "one_word": "word",
    "giant_sentence": "and so it went on " * 700,
    "punctuation": "... !!! ??? -- ,,, ;;;\n\n. . .",
    "emoji": "\U0001f600\U0001f603 \U0001f468\u200d\U0001f469\u200d\U0001f467! \U0001f1e9\U0001f1ea. \u2764\ufe0f",
    "cjk": "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002\u6211\u4eec\u53bb\u516c\u56ed\u3002" * 60,
    "rtl": "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645. \u05e9\u05dc\u05d5\u05dd.",
    "special_tokens": "The [MASK] and the [SEP] stand in a text. [CLS] too, and [PAD] [UNK].",
    "white_space": "\t  spaced\u00a0out \u2028 text \x0c here.\r\nNext line.\n\n\n  \n",
    "accents": "Caf\u00e9 na\u00efve \u00c5ngstr\u00f6m. S\u00e3o Paulo! \u0130stanbul?",
    "control": "\x01\x02\x03",
    "empty": "",
    "long_word": "x" * 5000 + ". End.",
}


@pytest.fixture
def tool(capsys: pytest.CaptureFixture[str]) -> Iterator[Tool]:
    """Call `python -m bert_pytorch.corpus` in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*words: object) -> Said:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def vocabulary() -> Path:
    """Google's uncased vocabulary."""
    return shared_data("vocab", "bert-base-uncased-vocab.txt")


@pytest.fixture
def raw_text(tmp_path: Path) -> Path:
    """A folder of raw documents: ten presidents' addresses and every awkward one."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:10]:
        (folder / path.name).write_bytes(path.read_bytes())
    for name, text in AWKWARD_DOCUMENTS.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


@pytest.fixture
def formatted_text(tmp_path: Path) -> Path:
    """Formatted text without the cost of formatting: presidents' addresses, a sentence about every full stop."""
    folder = tmp_path / "formatted"
    folder.mkdir()
    for path in sorted(shared_data("text", "inaugural").glob("*.txt"))[:12]:
        sentences = " ".join(path.read_text(encoding="utf-8").split()).replace(". ", ".\n")
        (folder / path.name).write_text(sentences + "\n", encoding="utf-8")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file that must be equal between equal builds."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "build_log.json")
    }
