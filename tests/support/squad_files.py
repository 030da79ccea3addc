"""SQuAD's files: the shared ones, and small ones written for a test."""

import json
from pathlib import Path
from typing import Any

from bert_pytorch.tasks.squad.files import SquadSet, read_squad
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer
from tests.support.data import shared_data

ARTICLES = ("super_bowl_50", "notre_dame")


def article(name: str) -> SquadSet:
    return read_squad([shared_data("squad", f"{name}.json")])


def real_tokenizer() -> Tokenizer:
    return load_tokenizer(shared_data("vocab", "bert-base-uncased-vocab.txt"))


def question(name: str, text: str, *answers: tuple[str, int], **more: Any) -> dict[str, Any]:
    listed = [{"text": answer, "answer_start": start} for answer, start in answers]
    return {"id": name, "question": text, "answers": listed, **more}


def write_squad(path: Path, *paragraphs: tuple[str, list[dict[str, Any]]]) -> Path:
    """Write passages, each with questions about it, in the official layout."""
    listed = [{"context": context, "qas": questions} for context, questions in paragraphs]
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": listed}]}), encoding="utf-8")
    return path
