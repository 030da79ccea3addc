"""Sentence splitting: a document to sentences, each on one line.

nltk       Punkt (Kiss and Strunk 2006) as NLTK has it; its parameters (abbreviations, collocations, …) come from NLTK's
           data where they are installed, else they are learnt from a sample of the corpus itself: no download is needed
nupunkt    Punkt trained on legal text: knows citations and thousands of abbreviations, English only
newline    every line is a sentence
"""

import functools
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from bert_pytorch.corpus import punkt
from bert_pytorch.errors import MissingDependencyError
from bert_pytorch.files import atomic_write_json, sha256_of

logger = logging.getLogger(__name__)

Newlines = Literal["auto", "break", "join"]
SplitterName = Literal["nltk", "nupunkt", "newline"]
Splitter = Callable[[str], list[str]]
"""Splits a paragraph whose only white space is single spaces between words into sentences of the same kind."""

PARAMETERS_FILE = "punkt.json"
_WRAP_WIDTH = 120
_SENTENCE_ENDS = tuple(".!?:;…\"'”’)]。！？")  # noqa: RUF001 the full-width ones are meant
_BLANK_LINES, _LINE_END, _WHITE_SPACE = re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"\s")
_WINDOW = 1 << 20
"""Characters that are divided at a time: lists of all words, or lines, take many times the memory of their text."""


def prepare_splitter(
    folder: Path,
    language: str,
    sample: Callable[[], Iterable[str]],
    name: SplitterName = "nltk",
    parameters_file: Path | None = None,
) -> str:
    """Make sure that `folder` has what the splitter needs, and say where it came from.

    Args:
        folder: where Punkt's parameters are kept, as `punkt.json`; an existing one is used as it is.
        language: whose pretrained parameters are looked for.
        sample: gives texts to learn from, called only where nothing is installed.
        name: of the splitter.
        parameters_file: a `punkt.json` of another build to use instead of learning.

    Raises:
        InputError: if `parameters_file` does not hold parameters.
        MissingDependencyError: if the splitter's library is not installed.
    """
    origin = {"newline": "every line is a sentence", "nupunkt": "nupunkt, its own parameters for English"}.get(name)
    if name == "nupunkt":
        _import_nupunkt()
    elif name == "nltk":
        origin = _prepare_punkt(folder / PARAMETERS_FILE, language, sample, parameters_file)
    logger.info("sentence splitter: %s", origin)
    return str(origin)


def _prepare_punkt(path: Path, language: str, sample: Callable[[], Iterable[str]], parameters_file: Path | None) -> str:
    if not path.is_file():
        if parameters_file is not None:
            parameters, origin = punkt.load(parameters_file), f"parameters of {parameters_file.name}"
        elif (installed := punkt.pretrained(language)) is not None:
            parameters, origin = installed, f"NLTK's pretrained parameters for {language}"
        else:
            logger.info("learning where sentences end from a sample of the text …")
            parameters, origin = punkt.learn(sample()), "learnt from a sample of this corpus"
        atomic_write_json(path, {"origin": origin, **punkt.to_json(parameters)})
    origin = str(json.loads(path.read_text(encoding="utf-8"))["origin"])
    return f"Punkt, {origin} ({path})"


def parameters_sha256(folder: Path, name: SplitterName) -> str:
    """Return the SHA-256 of the splitter's parameters in `folder`; empty where it has none."""
    return sha256_of(folder / PARAMETERS_FILE) if name == "nltk" else ""


@functools.lru_cache(maxsize=1)
def load_splitter(folder: Path, name: SplitterName = "nltk", sha256: str = "") -> Splitter:
    """Return the splitter whose parameters, if it has any, are in `folder`.

    Args:
        folder: with `punkt.json`.
        name: of the splitter.
        sha256: of the parameters: a process that lives on, as Dask's do, loads those of another build anew.
    """
    if name == "newline":
        return lambda line: [line]
    if name == "nupunkt":
        return _import_nupunkt()
    return punkt.FastPunkt(punkt.load(folder / PARAMETERS_FILE)).split


def _import_nupunkt() -> Splitter:
    try:
        import nupunkt
    except ImportError as error:
        raise MissingDependencyError(
            f"--splitter nupunkt needs nupunkt, which cannot be imported ({error}). "
            "Install it: pip install -r requirements-extras.txt"
        ) from error
    return lambda text: [" ".join(str(sentence).split()) for sentence in nupunkt.sent_tokenize(text)]


def split_document(text: str, splitter: Splitter, newlines: Newlines) -> Iterator[str]:
    """Yield the sentences of a document, white space normalised to single spaces, none of them empty.

    Args:
        text: a document; blank lines separate paragraphs.
        splitter: splits a paragraph.
        newlines: what the end of a line within a paragraph means: `break`, the end of a sentence; `join`, nothing
            (text wrapped at a fixed width); `auto` decides for each document by its looks.
    """
    join = newlines == "join" or (newlines == "auto" and _looks_wrapped(text))
    separator = _BLANK_LINES if join else _LINE_END
    for window in _windows(text, separator):
        for paragraph in separator.split(window) if join else window.split("\n"):
            if spaced := " ".join(single_spaced(paragraph)):
                yield from splitter(spaced)


def single_spaced(text: str) -> Iterator[str]:
    """Yield pieces of a text, to be put together by single spaces: all its words, and no other white space."""
    for window in _windows(text, _WHITE_SPACE):
        if words := window.split():
            yield " ".join(words)


def _windows(text: str, separator: re.Pattern[str]) -> Iterator[str]:
    """Divide a text at some of its separators, of white space, into pieces of about `_WINDOW` characters."""
    start = 0
    while len(text) - start > _WINDOW and (found := separator.search(text, start + _WINDOW)):
        yield text[start : found.start()]
        start = found.end()
    yield text[start:]


def _looks_wrapped(text: str) -> bool:
    """Whether lines are short and most lines that are followed by another end in the middle of a sentence."""
    inner = ended = 0
    before = ""
    for window in _windows(text, _LINE_END):
        for line in map(str.strip, window.split("\n")):
            if len(line) > _WRAP_WIDTH:
                return False
            if before and line:
                inner += 1
                ended += before.endswith(_SENTENCE_ENDS)
            before = line
    return ended < inner / 2
