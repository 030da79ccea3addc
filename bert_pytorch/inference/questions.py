"""Where questions and passages come from: the command line, SQuAD's files, JSON lines, a pipe, or a person."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from bert_pytorch.errors import InputError
from bert_pytorch.inference.predicting import PredictConfig
from bert_pytorch.inference.texts import Text, lines_of
from bert_pytorch.tasks.squad.files import read_squad
from bert_pytorch.tokenization.flat import without_surrogates

ASK_PASSAGE, ASK_QUESTION = "passage> ", "question> "


class QuestionsConfig(PredictConfig):
    """Options that say what is asked about what: `texts` are questions."""

    context: str | None = None
    """The passage that all questions are about, in quotes; those of files and pipes are then one a line."""
    context_file: Path | None = None
    """A text file that holds it."""
    input_file: tuple[Path, ...] = ()
    """Files of questions: .json in SQuAD's layout, or .jsonl with "question" and "context" (and "id") in each line;
    with --context or --context_file also text, a question a line."""

    renamed_flags: ClassVar[dict[str, str]] = {"question": "nothing: type the question itself, in quotes"}

    def combination_problems(self) -> Iterator[str]:
        """Say which passage is missing."""
        yield from super().combination_problems()
        given = self.context is not None or self.context_file is not None
        if self.context is not None and self.context_file is not None:
            yield "found --context and --context_file: keep one of them."
        if self.texts and not given:
            yield "--context is missing: the passage that the question is about, or --context_file."


def read_questions(config: QuestionsConfig) -> Iterator[Text]:
    """Yield each question with its passage, the `pair`.

    Raises:
        InputError: if a file cannot be read as its name says, or a line has no question or no passage.
    """
    context = _context(config)
    if config.texts:
        for number, question in enumerate(config.texts, start=1):
            yield Text(question, context, f"question {number}")
    elif config.is_interactive:
        yield from _typed(context)
    elif config.input_file:
        for path in config.input_file:
            yield from _of_file(path, context)
    else:
        for line, where in lines_of(sys.stdin.buffer, "standard input"):
            yield _record(line, where, None) if context is None else Text(line, context, where)


def _context(config: QuestionsConfig) -> str | None:
    if config.context_file is None:
        return config.context
    try:
        return config.context_file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{config.context_file}: it is not UTF-8 text. Convert it, for example by iconv.") from None


def _of_file(path: Path, context: str | None) -> Iterator[Text]:
    if path.suffix == ".json":
        squad = read_squad([path])
        for question in squad.questions:
            yield Text(question.text, squad.passages[question.passage], f"{path}, {question.id!r}", question.id)
        return
    with path.open("rb") as file:
        for line, where in lines_of(file, str(path)):
            if path.suffix != ".jsonl" and context is None:
                raise InputError(
                    f"{path}: a file of questions alone wants a passage: --context_file; questions with passages stand "
                    "in a .jsonl file, or a .json file of SQuAD's layout."
                )
            yield _record(line, where, context) if path.suffix == ".jsonl" else Text(line, context, where)


def _record(line: str, where: str, context: str | None) -> Text:
    wanted = 'wanted an object such as {"question": "…", "context": "…"}'
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where}: it is not JSON, {wanted}.") from None
    fields = record if isinstance(record, dict) else {}
    question, passage, name = fields.get("question"), fields.get("context", context), fields.get("id")
    if not isinstance(question, str) or not isinstance(passage, str) or not isinstance(name, str | int | None):
        raise InputError(f"{where}: found {line[:60]!r}, {wanted}.")
    name = None if name is None else without_surrogates(str(name))
    return Text(without_surrogates(question), without_surrogates(passage), where, name)


def _typed(context: str | None) -> Iterator[Text]:
    """Ask for questions, and for a passage first where none is given; an empty question asks for another one."""
    passage = context
    while True:
        line = _asked(ASK_PASSAGE if passage is None else ASK_QUESTION)
        if line is None:
            return
        if passage is None:
            passage = line or None
        elif line:
            yield Text(line, passage, "this question")
        else:
            passage = context


def _asked(prompt: str) -> str | None:
    """Return what is typed; None at the end of it."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        sys.stderr.write("\n")
        return None
    return line.strip()
