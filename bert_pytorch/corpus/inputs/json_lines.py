"""JSON lines: one object a line, one of its fields is the text of a document."""

import json
from collections.abc import Iterator
from typing import Any

from bert_pytorch.corpus.inputs.characters import unwanted_character
from bert_pytorch.corpus.inputs.stretches import LINE_END, ReadOptions, Source, Stretch, cut, read_lines
from bert_pytorch.errors import InputError


def divide_json_lines(source: Source, options: ReadOptions, stretch_bytes: int) -> list[Stretch]:
    """Cut a file at the ends of lines."""
    return cut(source, LINE_END, stretch_bytes, options.encoding)


def read_json_lines(stretch: Stretch, options: ReadOptions) -> Iterator[str]:
    """Yield the text of each object; that of null is empty.

    Raises:
        InputError: if a line is not a JSON object with the text field, or as `read_lines` does.
    """
    key = json.dumps(options.text_field)
    for number, line in enumerate(read_lines(stretch, options), start=1):
        if line and not line.isspace():
            try:
                yield _text_of(line, key, options)
            except _BadLineError as error:
                raise InputError(f"{stretch.where(number)} {error}") from None


class _BadLineError(Exception):
    """What is wrong with a line, as the end of a sentence."""


def _text_of(line: str, key: str, options: ReadOptions) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        array = line.lstrip()[:1] == "["
        advice = "Mend or remove it." if not array else "A file that is one list becomes lines with: jq -c '.[]'"
        raise _BadLineError(f"is not JSON ({error}): wanted one object a line. {advice}") from None
    if not isinstance(record, dict):
        raise _BadLineError(f'is a {type(record).__name__}, wanted an object such as {{"{options.text_field}": "…"}}.')
    text = _field(record, options.text_field)
    if text is not None and not isinstance(text, str):
        raise _BadLineError(f'has a {type(text).__name__} in "{options.text_field}", wanted a text.')
    if line.count(key) > 1 and _is_twice(line, options.text_field):
        raise _BadLineError(f'has "{options.text_field}" twice. Which one is meant? Remove the other.')
    if text and not options.any_character and (found := unwanted_character(text)):
        raise _BadLineError(f'holds {found} in "{options.text_field}". Mend it, or let cleaning replace it (--clean).')
    return text or ""


def _field(record: dict[str, Any], name: str) -> Any:
    """Return a field; `a.b` is b of the object a, where there is no field of that very name."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise _BadLineError(f'has no "{name}", only {", ".join(record) or "nothing"}. Name its --text_field.')
        value = value[part]
    return value


def _is_twice(line: str, name: str) -> bool:
    """Whether the object itself, not one inside, has a field twice."""
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object is the last one to end
        return {}

    json.loads(line, object_pairs_hook=keep)
    return sum(key == name for key, _ in pairs) > 1
