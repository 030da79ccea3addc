"""Reading a configuration file: JSON or YAML, flat, every wrong line reported at once."""

import difflib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bert_pytorch.config.settings import Settings, problems_of
from bert_pytorch.errors import ConfigError


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one flat mapping from a `.json`, `.yaml` or `.yml` file.

    Raises:
        ConfigError: if the file is missing, not text, not JSON/YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin a file with a byte-order mark
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["it is not UTF-8 text; wanted a JSON or YAML file."]) from None
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(str(path), ["there is no such file. Check the spelling of the path."]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["it is a folder; name the JSON or YAML file inside it."]) from None
    parse = _parse_yaml if path.suffix.lower() in (".yaml", ".yml") else _parse_json
    try:
        value = parse(text)
    except json.JSONDecodeError as error:
        reason = _JSON_REASONS.get(error.msg, "this is not JSON")
        problem = f"line {error.lineno}, column {error.colno}: {reason}. Mend the line; a YAML file ends in .yaml."
        raise ConfigError(str(path), [problem]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ConfigError(str(path), [f"{place}this is not YAML. Mend the line."]) from None
    except (RecursionError, ValueError):  # a thousand brackets, a number of 5,000 digits
        raise ConfigError(str(path), ["this is no configuration: wanted one key with its value a line."]) from None
    except _RepeatedKey as error:
        raise ConfigError(str(path), [f'the key "{error}" stands twice. Keep one of them.']) from None
    if not isinstance(value, dict):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise ConfigError(str(path), [f'found {found} at the top, wanted keys with values, as in {{"seed": 42}}.'])
    return {str(key): item for key, item in value.items()}


def check_file_values(values: dict[str, Any], settings: type[Settings], path: Path) -> None:
    """Raise one `ConfigError` naming every unknown key and every value of a wrong type in a configuration file."""
    problems = [unknown_key(name, settings) for name in values if name not in settings.model_fields]
    known = {name: value for name, value in values.items() if name in settings.model_fields}
    try:
        settings.model_validate(known)
    except ValidationError as error:
        problems += problems_of(error, settings, '"{}"')
    if problems:
        raise ConfigError(str(path), problems)


def unknown_key(name: str, settings: type[Settings]) -> str:
    """Say that a key is unknown: what an ancestor's is called here, else the nearest name."""
    if name in settings.all_renamed_flags():
        return f'"{name}" is not a key here: use {settings.all_renamed_flags()[name]}.'
    near = difflib.get_close_matches(name, settings.model_fields, n=1)
    hint = f'did you mean "{near[0]}"?' if near else "--help lists the known ones."
    return f'unknown key "{name}": {hint}'


class _RepeatedKey(Exception):  # noqa: N818 never leaves this module
    pass


def _parse_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise _RepeatedKey(name)
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique) if text.strip() else None


_JSON_REASONS = {
    "Expecting value": "a value is wanted here",
    "Expecting property name enclosed in double quotes": "a key in double quotes is wanted here (no comma before })",
    "Illegal trailing comma before end of object": "no comma stands after the last value",
    "Expecting ',' delimiter": "a comma is wanted here",
    "Expecting ':' delimiter": "a colon is wanted here",
    "Extra data": "something stands after the end",
    "Unterminated string starting at": "this text has no closing quote",
    "Invalid control character at": "a text goes on over the end of its line, or holds a tab",
}


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, _Yaml)  # noqa: S506 a SafeLoader


class _Yaml(yaml.SafeLoader):
    """YAML as people read it (the core schema of YAML 1.2), a repeated key is an error.

    PyYAML's own is YAML 1.1, where 6e-3 is a text, 010 is eight, 1:30 is ninety, and a key `on` is true.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise _RepeatedKey(name)
        return super().construct_mapping(node, deep)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(node.value)


_Yaml.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _first)
_Yaml.add_constructor("tag:yaml.org,2002:int", _integer)
