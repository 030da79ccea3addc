"""Running `predict` in this process, as a person types it."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bert_pytorch import predict
from bert_pytorch.errors import front_door


class Outcome(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str


class Terminal(io.TextIOWrapper):
    """A standard input at which a person sits."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the command; `stdin` is a pipe's content, or with `typed` what a person types."""

    def call(*words: str | Path, stdin: str | bytes = "", typed: bool = False) -> Outcome:
        content = io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin)
        kind = Terminal if typed else io.TextIOWrapper
        monkeypatch.setattr(sys, "argv", ["predict", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", kind(content, encoding="utf-8"))
        code = front_door(predict.main)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
