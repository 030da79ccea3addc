"""SQuAD's files: the shared ones, and small ones written for a test; running run_squad.py on them."""

import functools
import json
import random
from pathlib import Path
from typing import Any

from bert_pytorch.finetuning import squad
from bert_pytorch.tasks.squad.files import SquadSet, read_squad
from bert_pytorch.tokenization.tokenizer import Tokenizer, load_tokenizer
from tests.support.data import shared_data
from tests.support.runs import REPOSITORY, Outcome, run_here, words

ARTICLES = ("super_bowl_50", "notre_dame")


def article(name: str) -> SquadSet:
    return read_squad([shared_data("squad", f"{name}.json")])


@functools.cache
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


def squad_here(**flags: Any) -> Outcome:
    """Run run_squad.py in this process."""
    return run_here(squad.main, words(flags))


def squad_command(**flags: Any) -> list[str]:
    """Return the words after `python` that run run_squad.py as a program."""
    return [str(REPOSITORY / "run_squad.py"), *words(flags)]


def letters(path: Path, passages: int, seed: int = 0, negative: bool = False, longest: int = 22) -> Path:
    """Write passages of letters with questions of one letter: the answer is the letter itself and the one after it.

    Args:
        path: of the file.
        passages: how many, with two questions each.
        seed: of the letters.
        negative: whether the second question is about a letter that is not in the passage.
        longest: letters of a passage at most, each once.
    """
    rng = random.Random(seed)
    paragraphs = []
    for number in range(passages):
        text = rng.sample("abcdefghijklmnopqrstuvw", rng.randint(4, longest))
        questions = []
        for name in "01":
            place = rng.randrange(len(text) - 1)
            answer = " ".join(text[place : place + 2])
            asked = question(f"{seed}-{number}-{name}", text[place], (answer, 2 * place))
            if name == "1" and negative:
                asked = question(f"{seed}-{number}-{name}", "z", is_impossible=True)
            questions.append(asked)
        paragraphs.append((" ".join(text), questions))
    return write_squad(path, *paragraphs)
