"""The shell commands of a Markdown file, block by block, with what an HTML comment before a block says about it."""

import re
from typing import NamedTuple

MARKER = re.compile(r"<!--\s*(not run in tests|must run):\s*(.*?)\s*-->")


class Block(NamedTuple):
    """One fenced ```bash block."""

    line: int
    """Of its opening fence, from 1."""
    commands: tuple[str, ...]
    """Continued lines (`\\`) belong to one command; comments and empty lines are left out."""
    skip_reason: str
    """Empty: it runs."""
    name: str
    """Given by `must run`; empty for others."""


def bash_blocks(markdown: str) -> list[Block]:
    """Read all ```bash blocks.

    Raises:
        ValueError: a fence is not closed, a marker stands before no bash block, or one gives no reason or name.
    """
    blocks = []
    marker: tuple[str, str] | None = None
    lines = iter(enumerate(markdown.splitlines(), start=1))
    for number, line in lines:
        if found := MARKER.fullmatch(line.strip()):
            if marker:
                raise ValueError(f"line {number}: a second marker before one block.")
            marker = (found[1], found[2])
            if not marker[1]:
                raise ValueError(f"line {number}: after {marker[0]!r} follows a reason or a name, found none.")
        elif opening := re.fullmatch(r"\s*(```+)\s*(\w*).*", line):
            content = until_fence(lines, opening[1], number)
            if opening[2] == "bash":
                kind, text = marker or ("", "")
                skip_reason, name = (text, "") if kind == "not run in tests" else ("", text)
                blocks.append(Block(number, commands_of(content), skip_reason, name))
                marker = None
        if marker and line.strip() and not found:
            raise ValueError(f"line {number}: a marker stands directly before its ```bash block, found {line!r}.")
    if marker:
        raise ValueError(f"a marker at the end of the file has no block: {marker}.")
    return blocks


def until_fence(lines: "enumerate[str]", fence: str, opened: int) -> list[str]:
    """Take the lines of a block up to its closing fence."""
    content = []
    for _, line in lines:
        if line.strip() == fence:
            return content
        content.append(line)
    raise ValueError(f"line {opened}: the block is not closed.")


def commands_of(lines: list[str]) -> tuple[str, ...]:
    """Join continued lines; leave out comments and empty lines."""
    commands: list[str] = []
    continued = False
    for line in lines:
        if continued:
            commands[-1] += "\n" + line
        elif line.strip() and not line.lstrip().startswith("#"):
            commands.append(line.strip())
        else:
            continue
        continued = line.rstrip().endswith("\\")
    return tuple(commands)
