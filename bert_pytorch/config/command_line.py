"""From `argv` to checked settings: command line over `--config_file` over defaults.

tyro makes the options' help from the settings class.  Because its parser stops at the first problem, in a library's
words, and reads some values otherwise than pydantic does (`--seed 5.0`), `_scan` assigns the words to the fields and
pydantic reads them, as it reads the values of a file; everything wrong is reported at once, in our words.
"""

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, NoReturn, TypeVar

import tyro
from pydantic import Field, ValidationError, create_model

from bert_pytorch.config.files import check_file_values, read_mapping
from bert_pytorch.config.settings import Settings, problems_of
from bert_pytorch.errors import ConfigError

S = TypeVar("S", bound=Settings)

COMMAND_LINE = "command line"

DEFAULT = "default"
_POSITIONAL = typing.get_args(tyro.conf.Positional[int])[1]


class Resolved(NamedTuple, Generic[S]):
    """Settings and where each value came from."""

    settings: S
    origins: dict[str, str]
    """Field name to `command line`, `default`, or the path of the configuration file."""


def parse_settings(settings: type[S], argv: Sequence[str], *, program: str, description: str) -> Resolved[S]:
    """Read settings of one class from command-line words; both spellings `--input_dir` and `--input-dir` work.

    A field named `config_file` names a JSON or YAML file whose values lie beneath the command line, wherever the flag
    stands.  Fields annotated with `tyro.conf.Positional` take the words that belong to no flag.

    Raises:
        ConfigError: all problems of the first layer that has any: the command line, the file, then combinations.
        SystemExit: with code 0 after `--help`.
    """
    if any(word in ("-h", "--help") for word in argv):
        _show_help(settings, program, description)
    scan = _scan(settings, argv)
    if scan.problems:
        raise ConfigError(program, [*scan.problems, f"{program} --help lists all options."])
    values: dict[str, Any] = {}
    origins = dict.fromkeys(settings.model_fields, DEFAULT)
    config_file = scan.values.get("config_file")
    if config_file is not None:
        values = read_mapping(Path(config_file))
        check_file_values(values, settings, Path(config_file))
        origins |= dict.fromkeys(values, str(config_file))
    origins |= dict.fromkeys(scan.values, COMMAND_LINE)
    parsed = settings.model_validate(values | scan.values)
    return Resolved(parsed.checked(program), origins)


def _show_help(settings: type[Settings], program: str, description: str) -> NoReturn:
    tyro.cli(_as_shown(settings), args=["--help"], prog=program, description=description, use_underscores=True)
    raise AssertionError("tyro ends the program after --help")


def _as_shown(settings: type[Settings]) -> type[Settings]:
    """Return the class with `bool | None` made `bool`, which tyro shows as `_scan` reads it: --x, --no-x."""
    hint = tyro.conf.arg(help_behavior_hint="(default: None)")
    either = {
        name: (Annotated[bool, hint], Field(False, description=field.description))
        for name, field in settings.model_fields.items()
        if set(typing.get_args(field.annotation)) == {bool, type(None)}
    }
    return create_model(settings.__name__, __base__=settings, **either) if either else settings  # type: ignore[call-overload]


class _Scan(NamedTuple):
    values: dict[str, Any]
    problems: list[str]


def _scan(settings: type[Settings], argv: Sequence[str]) -> _Scan:
    """Assign each word to its field by the flag before it, and describe every word or value that is wrong."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    positional = next((name for name in settings.model_fields if _is_positional(settings, name)), None)
    words = list(argv)
    while words:
        word = words.pop(0)
        given: list[Any]
        if not _is_flag(word):
            if positional is None:
                problems.append(f"{word!r} belongs to no option; options start with --.")
            else:
                values.setdefault(positional, []).append(word)
            continue
        flag, equals, value = word.removeprefix("--").partition("=")
        name = flag.replace("-", "_")
        if name.startswith("no_") and _arity(settings, name[3:]) == 0:
            name, given = name[3:], [False]
            if equals:
                problems.append(f"--no-{name} takes no value, found {value!r}: write --{name} or --no-{name}.")
        elif name not in settings.model_fields or name == positional:
            problems.append(_unknown_flag(word.partition("=")[0], name, settings))
            while words and not _is_flag(words[0]):
                words.pop(0)
            continue
        elif _arity(settings, name) == 0:
            given = [True]
            if equals or (words and words[0].lower() in ("true", "false", "0", "1")):
                spoken = value if equals else words.pop(0)
                problems.append(f"--{name} takes no value, found {spoken!r}: write --{name} or --no-{name}.")
        elif equals:
            given = [value]
        else:
            given = []
            while words and not _is_flag(words[0]) and (len(given) < 1 or _arity(settings, name) > 1):
                given.append(words.pop(0))
        if not given:
            problems.append(f"--{name}: no value follows it.")
            continue
        if name in values:
            problems.append(f"--{name} stands twice; keep one of them.")
        values[name] = given if _arity(settings, name) > 1 else given[0]
    values = {name: _none_if_spoken(settings, name, value) for name, value in values.items()}
    problems += _wrong_values(settings, values)
    return _Scan(values, problems)


def _wrong_values(settings: type[Settings], values: dict[str, Any]) -> list[str]:
    try:
        settings.model_validate(values)
    except ValidationError as error:
        return problems_of(error, settings, "--{}")
    return []


def _none_if_spoken(settings: type[Settings], name: str, value: Any) -> Any:
    """Read `None` and `none` as no value, where a field takes that."""
    optional = type(None) in typing.get_args(settings.model_fields[name].annotation)
    return None if optional and value in ("None", "none") else value


def _unknown_flag(word: str, name: str, settings: type[Settings]) -> str:
    renamed = settings.all_renamed_flags()
    if name in renamed:
        return f"{word} is not a flag here: use {renamed[name]}."
    near = difflib.get_close_matches(name, settings.model_fields, n=1)
    return f"unknown flag {word}" + (f": did you mean --{near[0]}?" if near else ".")


def _is_flag(word: str) -> bool:
    """Whether a word names an option: `-5` and `-1e-3` are values."""
    if not word.startswith("-") or word == "-":
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False


def _is_positional(settings: type[Settings], name: str) -> bool:
    return _POSITIONAL in settings.model_fields[name].metadata


def _arity(settings: type[Settings], name: str) -> int:
    """How many words follow the flag: 0 for a boolean, 1, or 2 for any number of them; -1 if there is no such field."""
    field = settings.model_fields.get(name)
    if field is None:
        return -1
    annotation: Any = field.annotation
    if isinstance(annotation, types.UnionType):
        annotation = next(member for member in typing.get_args(annotation) if member is not type(None))
    if annotation is bool:
        return 0
    return 2 if typing.get_origin(annotation) in (tuple, list) else 1
