"""Sentence splitting by NLTK's Punkt (Kiss and Strunk 2006): a document to sentences, each on one line.

Punkt's parameters (abbreviations, collocations, …) come from NLTK's data where they are installed, else they are learnt
from a sample of the corpus itself: no download is ever needed.
"""

import functools
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import nltk
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer, PunktTokenizer, PunktTrainer

from bert_pytorch.files import atomic_write_json

logger = logging.getLogger(__name__)

Newlines = Literal["auto", "break", "join"]
Splitter = Callable[[str], list[str]]

PARAMETERS_FILE = "punkt.json"
_WRAP_WIDTH = 120
_SENTENCE_ENDS = tuple(".!?:;…\"'”’)]。！？")  # noqa: RUF001 the full-width ones are meant
_BLANK_LINES = re.compile(r"\n\s*\n")


def prepare_splitter(folder: Path, language: str, sample: Callable[[], Iterable[str]]) -> str:
    """Make sure that `folder` has Punkt's parameters, and say where they came from.

    Args:
        folder: where `punkt.json` is kept; an existing one is used as it is.
        language: whose pretrained parameters are looked for.
        sample: gives texts to learn from, called only where nothing is installed.
    """
    path = folder / PARAMETERS_FILE
    if not path.is_file():
        if _has_pretrained(language):
            parameters, origin = PunktTokenizer(language)._params, f"NLTK's pretrained parameters for {language}"
        else:
            parameters, origin = _learn(sample()), "learnt from a sample of this corpus"
        atomic_write_json(path, {"origin": origin, **_to_json(parameters)})
    origin = str(json.loads(path.read_text(encoding="utf-8"))["origin"])
    logger.info("sentence splitter: Punkt, %s (%s)", origin, path)
    return origin


@functools.lru_cache(maxsize=1)
def load_splitter(folder: Path) -> Splitter:
    """Return the splitter whose parameters are in `folder`."""
    content = json.loads((folder / PARAMETERS_FILE).read_text(encoding="utf-8"))
    tokenizer = PunktSentenceTokenizer(_from_json(content))
    return lambda text: list(tokenizer.tokenize(text))


def split_document(text: str, splitter: Splitter, newlines: Newlines) -> list[str]:
    """Split a document into sentences, white space normalised to single spaces, none of them empty.

    Args:
        text: a document; blank lines separate paragraphs.
        splitter: splits a paragraph.
        newlines: what the end of a line within a paragraph means: `break`, the end of a sentence; `join`, nothing
            (text wrapped at a fixed width); `auto` decides for each document by its looks.
    """
    join = newlines == "join" or (newlines == "auto" and _looks_wrapped(text))
    paragraphs = _BLANK_LINES.split(text) if join else text.split("\n")
    sentences = [" ".join(sentence.split()) for paragraph in paragraphs for sentence in splitter(_joined(paragraph))]
    return [sentence for sentence in sentences if sentence]


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split("\n"))


def _looks_wrapped(text: str) -> bool:
    """Whether lines are short and most lines that are followed by another end in the middle of a sentence."""
    lines = [line.strip() for line in text.split("\n")]
    inner = [line for line, following in itertools.pairwise(lines) if line and following]
    if not inner or max(map(len, lines)) > _WRAP_WIDTH:
        return False
    return sum(line.endswith(_SENTENCE_ENDS) for line in inner) < len(inner) / 2


def _has_pretrained(language: str) -> bool:
    try:
        nltk.data.find(f"tokenizers/punkt_tab/{language}/")
    except LookupError:
        return False
    return True


def _learn(texts: Iterable[str]) -> PunktParameters:
    trainer = PunktTrainer()
    for text in texts:
        trainer.train(text, finalize=False)
    trainer.finalize_training()
    return trainer.get_params()


def _to_json(parameters: PunktParameters) -> dict[str, Any]:
    return {
        "abbreviations": sorted(parameters.abbrev_types),
        "collocations": sorted(map(list, parameters.collocations)),
        "sentence_starters": sorted(parameters.sent_starters),
        "orthographic_context": dict(sorted(parameters.ortho_context.items())),
    }


def _from_json(content: dict[str, Any]) -> PunktParameters:
    parameters = PunktParameters()
    parameters.abbrev_types = set(content["abbreviations"])
    parameters.collocations = {(first, second) for first, second in content["collocations"]}
    parameters.sent_starters = set(content["sentence_starters"])
    parameters.ortho_context.update(content["orthographic_context"])
    return parameters
