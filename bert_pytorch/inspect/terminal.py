"""Colour on a terminal, and text that cannot harm one."""

import os
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

Color = Literal["auto", "always", "never"]
Style = Literal["segment_a", "special", "segment_b", "masked", "random", "kept", "heading"]

_CODES: dict[Style, str] = {
    "segment_a": "39",  # the terminal's own
    "special": "2",  # dim
    "segment_b": "36",  # cyan
    "masked": "1;31",  # bold red
    "random": "1;35",  # bold magenta
    "kept": "1;33",  # bold yellow
    "heading": "1",
}


def wants_color(choice: Color, stream: TextIO | None = None, environment: Mapping[str, str] = os.environ) -> bool:
    """Decide on colour: `auto` takes it on a terminal, unless $NO_COLOR is set (no-color.org) or it can show none."""
    if choice != "auto":
        return choice == "always"
    dumb = environment.get("TERM") == "dumb"
    return (stream or sys.stdout).isatty() and not environment.get("NO_COLOR") and not dumb


def paint(text: str, style: Style, color: bool) -> str:
    """Return text in a style's colour."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if color else text


def printable(text: str) -> str:
    """Return text with what a terminal would obey, or not show, written as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
