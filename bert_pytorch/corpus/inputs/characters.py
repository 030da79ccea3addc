"""Characters that no text has: NUL and halves of surrogate pairs, which JSON can write down all the same."""

import re

NEVER_TEXT = "\0\ud800-\udfff"
"""As in a class of a regular expression."""
_NEVER_TEXT = re.compile(f"[{NEVER_TEXT}]")


def unwanted_character(text: str) -> str | None:
    """Name the first such character of a text; None if there is none."""
    if text.isascii() and "\0" not in text:
        return None
    found = _NEVER_TEXT.search(text)
    if found is None:
        return None
    return "a NUL character" if found[0] == "\0" else f"\\u{ord(found[0]):04x}, half of a surrogate pair,"
