"""Cleaning of a document's characters: a few steps, each known by name, none of which loses a word.

characters   U+0000 becomes a space, half of a surrogate pair U+FFFD; both are counted and told
lines        CR LF, CR, U+0085 and U+2028 become the end of a line, U+2029 a blank line
control      other control characters (Cc) are removed, but those that are white space
invisible    U+00AD soft hyphen, U+200B, U+2060, U+FEFF are removed: they tell where a line may break
nfc          composed characters (Unicode NFC)

`nfc` is not among the defaults: nobody composes what a trained model reads, and uncased models take accents off anyway.
Joiners and marks of direction (U+200C to U+200F, …) stay: words and emoji are written with them.  BERT's own tokenizer
removes what `control` and `invisible` do, so that its tokens stay the same; for byte-level BPE they are noise.  Text
that was decoded wrongly before it came here stays as it is.
"""

import functools
import re
import unicodedata
from typing import Literal, NamedTuple

from bert_pytorch.corpus.inputs.characters import NEVER_TEXT

CleanStep = Literal["characters", "lines", "control", "invisible", "nfc"]
DEFAULT_STEPS: tuple[CleanStep, ...] = ("characters", "lines", "control", "invisible")

_CLASSES: dict[CleanStep, str] = {
    "characters": NEVER_TEXT,
    "lines": "\x85\u2028\u2029",  # CR apart, as a whole text may be written with it
    "control": "\x01-\x08\x0e-\x1b\x7f-\x84\x86-\x9f",
    "invisible": "\xad\u200b\u2060\ufeff",
}
_LINE_ENDS = {"\x85": "\n", "\u2028": "\n", "\u2029": "\n\n"}
_WINDOW = 1 << 20
_SURROGATES = re.compile("[\ud800-\udfff]")


class Cleaned(NamedTuple):
    """A cleaned document."""

    text: str
    nul: int
    """U+0000 replaced."""
    surrogates: int
    """Halves of surrogate pairs replaced."""


def clean(text: str, steps: tuple[CleanStep, ...] = DEFAULT_STEPS) -> Cleaned:
    """Clean a document; doing it again changes nothing.

    Args:
        text: of one document.
        steps: which of the module's steps; their order does not matter.
    """
    nul = surrogates = 0
    if "lines" in steps and "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    found = _search_for(steps)
    if found.is_in(text):
        if "characters" in steps:
            nul, surrogates = text.count("\0"), len(_SURROGATES.findall(text))
        text = found.pattern.sub(_replacement, text)
    if "nfc" in steps:
        text = unicodedata.normalize("NFC", text)  # at once where it is NFC already
    return Cleaned(text, nul, surrogates)


class _Search(NamedTuple):
    pattern: re.Pattern[str]
    ascii_found: bytes

    def is_in(self, text: str) -> bool:
        if text.isascii():  # ten times as fast as the pattern
            windows = (text[start : start + _WINDOW].encode() for start in range(0, len(text), _WINDOW))
            return any(len(window.translate(None, self.ascii_found)) < len(window) for window in windows)
        return self.pattern.search(text) is not None


@functools.cache
def _search_for(steps: tuple[CleanStep, ...]) -> _Search:
    classes = "".join(_CLASSES.get(step, "") for step in sorted(set(steps)))
    pattern = re.compile(f"[{classes}]" if classes else "(?!)")
    return _Search(pattern, bytes(code for code in range(128) if pattern.match(chr(code))))


def _replacement(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\0":
        return " "
    if "\ud800" <= character <= "\udfff":
        return "\ufffd"
    return _LINE_ENDS.get(character, "")
