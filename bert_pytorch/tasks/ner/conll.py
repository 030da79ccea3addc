"""CoNLL files: a word a line, its tag in the last column, sentences apart by blank lines; read whole and written back.

Columns are apart by tabs where the first word's line has one, else by spaces.  `-DOCSTART-` begins a document and is no
word.  Only these characters separate: a word may be any other, the exotic spaces of Unicode too.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bert_pytorch.errors import InputError
from bert_pytorch.files import atomic_write_text
from bert_pytorch.tasks.ner.schemes import OUTSIDE, Entity, Scheme, entities_of, nearest_scheme, split_tag, tags_of

logger = logging.getLogger(__name__)

DOCUMENT_START = "-DOCSTART-"


class ConllFile(NamedTuple):
    """A file of N words in n sentences."""

    path: Path
    lines: tuple[str, ...]
    """All of it, without line ends."""
    separator: str
    """A tab or a space."""
    words: tuple[str, ...]
    """First column, N of them."""
    tags: tuple[str, ...]
    """Last column as it stands in the file, N of them."""
    places: tuple[int, ...]
    """Index into `lines` of each of the N words."""
    starts: tuple[int, ...]
    """n + 1 of them: sentence i has the words from `starts[i]` to `starts[i + 1]`."""
    scheme: Scheme
    """What the tags follow, or nearly."""

    def sentences(self, values: Sequence[str]) -> list[Sequence[str]]:
        """Cut one value a word into sentences."""
        return cut(values, self.starts)

    def entities(self) -> list[list[Entity]]:
        """Return the entities of each sentence."""
        return [entities_of(tags) for tags in self.sentences(self.tags)]

    def where(self, word: int) -> str:
        """Say where a word stands."""
        return f"{self.path}, line {self.places[word] + 1}"


def cut(values: Sequence[str], starts: Sequence[int]) -> list[Sequence[str]]:
    """Cut one value a word into the sentences that begin at `starts`, the last of which is the end."""
    return [values[start:stop] for start, stop in itertools.pairwise(starts)]


def read_conll(path: Path) -> ConllFile:
    """Read a file and recognise what its tags follow.

    Tags that the scheme of the others would write otherwise (two in CoNLL-2003's `eng.train`) are told in the log and
    read as conlleval reads them.

    Args:
        path: UTF-8 text, with a byte order mark or without.

    Raises:
        InputError: naming the line, if it is no such file, or a tag is none of any scheme.
    """
    lines = _lines_of(path)
    rows = [(number, line) for number, line in enumerate(lines) if _is_word(line)]
    if not rows:
        raise InputError(f"{path}: there is no word in it; wanted lines of a word and its tag, such as: Paris B-LOC")
    separator = "\t" if "\t" in rows[0][1] else " "
    table = [_columns_of(line, separator) for _, line in rows]
    _check_columns(path, rows, table)
    _check_tags(path, rows, table)
    places = tuple(number for number, _ in rows)
    tags = tuple(columns[-1] for columns in table)
    starts = tuple(_sentence_starts(places))
    return ConllFile(
        path=path,
        lines=tuple(lines),
        separator=separator,
        words=tuple(columns[0] for columns in table),
        tags=tags,
        places=places,
        starts=starts,
        scheme=_recognised(path, tags, starts, places),
    )


def write_predictions(path: Path, file: ConllFile, entities: Sequence[Sequence[Entity]]) -> None:
    """Write a file again with a last column more, predicted tags in the file's own scheme: what conlleval reads.

    Args:
        path: written atomically.
        file: all its lines are kept, document starts (`O` is added to them) and blank ones too.
        entities: predicted ones of each sentence.
    """
    lengths = [stop - start for start, stop in itertools.pairwise(file.starts)]
    predicted = [tag for found, n in zip(entities, lengths, strict=True) for tag in tags_of(found, n, file.scheme)]
    added = dict(zip(file.places, predicted, strict=True))
    lines = []
    for place, line in enumerate(file.lines):
        kept = line.rstrip(" \t")
        lines.append(f"{kept}{file.separator}{added.get(place, OUTSIDE)}" if kept else "")
    atomic_write_text(path, "\n".join(lines).rstrip("\n") + "\n")


def _lines_of(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: it is not UTF-8 text. Convert it, for example by iconv.") from None
    return [line.removesuffix("\r") for line in text.split("\n")]  # splitlines() would cut at U+2028 and the like


def _columns_of(line: str, separator: str) -> list[str]:
    columns = line.rstrip(" \t").split(separator)
    return columns if separator == "\t" else [column for column in columns if column]


def _is_word(line: str) -> bool:
    first = line.strip(" \t").replace("\t", " ").partition(" ")[0]
    return first not in ("", DOCUMENT_START)


def _check_columns(path: Path, rows: Sequence[tuple[int, str]], table: Sequence[Sequence[str]]) -> None:
    first, wanted = rows[0][0] + 1, len(table[0])
    if wanted < 2:
        raise InputError(
            f"{path}, line {first}: found one column, wanted two or more apart by spaces or tabs, the word first and "
            "its tag last, such as: Paris B-LOC"
        )
    ragged = [number + 1 for (number, _), columns in zip(rows, table, strict=True) if len(columns) != wanted]
    if ragged:
        found = next(len(columns) for columns in table if len(columns) != wanted)
        more = f" (and {len(ragged) - 1} more lines differ)" if len(ragged) > 1 else ""
        raise InputError(
            f"{path}, line {ragged[0]}: found {found} column{'s' * (found > 1)}, wanted {wanted} as in line "
            f"{first}{more}. Every word's line has the same columns."
        )


def _check_tags(path: Path, rows: Sequence[tuple[int, str]], table: Sequence[Sequence[str]]) -> None:
    known: dict[str, bool] = {}
    for (number, _), columns in zip(rows, table, strict=True):
        tag = columns[-1]
        if not known.setdefault(tag, split_tag(tag) is not None):
            raise InputError(
                f"{path}, line {number + 1}: {tag!r} is no tag of IOB1, IOB2 or BIOES; wanted O, or one of B- I- E- S- "
                "and a type, such as B-LOC, in the last column."
            )


def _sentence_starts(places: Sequence[int]) -> Iterator[int]:
    """Yield 0, each word before which a blank line or a document start stands, and the number of words."""
    for word, place in enumerate(places):
        if word == 0 or place != places[word - 1] + 1:
            yield word
    yield len(places)


def _recognised(path: Path, tags: Sequence[str], starts: Sequence[int], places: Sequence[int]) -> Scheme:
    scheme, deviating = nearest_scheme(cut(tags, starts))
    if deviating:
        first = deviating[0]
        word = starts[first.sentence] + first.word
        logger.warning(
            "%s: %d of %d tags are not as %s, the nearest scheme, writes them: line %d has %r for %r. They are read as "
            "conlleval reads them.",
            *(path, len(deviating), len(tags), scheme, places[word] + 1, tags[word], first.wanted),
        )
    return scheme
