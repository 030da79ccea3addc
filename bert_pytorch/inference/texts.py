"""Where the texts of a prediction come from: the command line, files, a pipe, or a person who types them."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import tyro

from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import InputError, report
from bert_pytorch.tokenization.flat import without_surrogates

PROMPT = "text> "


class Text(NamedTuple):
    """One text, or a pair of them, to be predicted."""

    text: str
    pair: str | None
    """The second text."""
    where: str
    """It comes from, for messages."""
    id: str | None = None
    """Its name, where the input gives one."""


class TextsConfig(Settings):
    """Where texts come from."""

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts, each in quotes; without any the lines of --input_file or standard input, or what is typed at a
    terminal."""
    input_file: tuple[Path, ...] = ()
    """Files of texts, one a line, an empty line being an empty text; of a .jsonl file, the key "text" of each
    line (for pairs "text_pair" too)."""

    def combination_problems(self) -> Iterator[str]:
        """Refuse two sources at once."""
        yield from super().combination_problems()
        if self.texts and self.input_file:
            yield "found texts on the command line and --input_file as well; keep one of them."

    @property
    def is_interactive(self) -> bool:
        """Whether a person at a terminal types the texts."""
        return not self.texts and not self.input_file and sys.stdin.isatty()


def read_texts(config: TextsConfig, *, pairs: bool = False) -> Iterator[Text]:
    """Yield all texts in order.

    Args:
        config: says where they are.
        pairs: whether each is two, apart by a tab.

    Raises:
        InputError: if a file cannot be read as its name says, or there is no text at all.
    """
    if config.texts:
        for number, text in enumerate(config.texts, start=1):
            yield _text(text, f"text {number}", pairs)
    elif config.is_interactive:
        yield from _typed(pairs)
    elif config.input_file:
        for path in config.input_file:
            with path.open("rb") as file:
                yield from _lines(file, str(path), _record if path.suffix == ".jsonl" else _text, pairs)
    else:
        yield from _lines(sys.stdin.buffer, "standard input", _text, pairs)


def _typed(pairs: bool) -> Iterator[Text]:
    while True:
        sys.stderr.write(PROMPT)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stderr.write("\n")
            return
        if not line.strip():
            continue
        try:
            yield _text(line.strip(), "this text", pairs)
        except InputError as error:
            report(str(error))


def lines_of(file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a file, and where it stands.

    Raises:
        InputError: if there is none, or at the first that is not UTF-8.
    """
    number = 0
    for number, line in enumerate(file, start=1):
        where = f"{name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError(f"{where}: it is not UTF-8 text. Convert it, for example by iconv.") from None
        yield text, where
    if not number:
        raise InputError(f"{name} is empty: give texts, one a line, or a text in quotes.")


def _lines(file: IO[bytes], name: str, read: Callable[[str, str, bool], Text], pairs: bool) -> Iterator[Text]:
    for line, where in lines_of(file, name):
        yield read(line, where, pairs)


def _text(text: str, where: str, pairs: bool) -> Text:
    text = without_surrogates(text)  # of bytes in an argument that are no UTF-8
    if not pairs:
        return Text(text, None, where)
    first, tab, second = text.partition("\t")
    if not tab:
        raise InputError(f"{where}: found no tab, wanted two texts apart by one, as --pairs says.")
    return Text(first, second, where)


def _record(line: str, where: str, pairs: bool) -> Text:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f'{where}: it is not JSON, wanted an object such as {{"text": "…"}}.') from None
    keys = ("text", "text_pair") if pairs else ("text",)
    found = [record.get(key) if isinstance(record, dict) else None for key in keys]
    if not all(isinstance(text, str) for text in found):
        shown = ", ".join(f'"{key}": "…"' for key in keys)
        raise InputError(f"{where}: found {line[:60]!r}, wanted an object with texts, such as {{{shown}}}.")
    texts = [without_surrogates(str(text)) for text in found]
    return Text(texts[0], texts[1] if pairs else None, where)
