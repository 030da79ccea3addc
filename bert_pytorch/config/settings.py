"""`Settings`: what every component's configuration is made of.

A component owns a frozen `Settings` class beside its code, every field with a docstring that becomes its `--help`.
A run's configuration inherits from its components' classes, so that all keys stand flat and a run's configuration *is*
each component's; a component is handed the whole but its signature names only its own class.
"""

import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

import annotated_types
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from bert_pytorch.errors import ConfigError


class Settings(BaseModel):
    """Base of all configuration: immutable, unknown keys refused, fields documented by the string under them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        validate_default=False,
    )

    renamed_flags: ClassVar[dict[str, str]] = {}
    """Flags of the ancestors that are called otherwise here: old name (without dashes) to what to type instead."""

    def combination_problems(self) -> Iterator[str]:
        """Yield a message for each impossible combination; overriding classes yield from `super()` as well."""
        yield from ()

    def checked(self, where: str) -> Self:
        """Return self, or raise one `ConfigError` with all impossible combinations."""
        problems = list(self.combination_problems())
        if problems:
            raise ConfigError(where, problems)
        return self

    @classmethod
    def all_renamed_flags(cls) -> dict[str, str]:
        """Collect `renamed_flags` over all components."""
        return {old: new for base in reversed(cls.__mro__) for old, new in vars(base).get("renamed_flags", {}).items()}

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic reads true as 1; in a configuration file that is a slip of the hand.
        items = value if isinstance(value, list | tuple) else [value]
        annotation = cls.model_fields[info.field_name or ""].annotation
        if any(isinstance(item, bool) for item in items) and not _takes_booleans(annotation):
            raise PydanticCustomError("boolean", "boolean")
        return value


def problems_of(error: ValidationError, settings: type[Settings], spell: str = "{}") -> list[str]:
    """Say each wrong value in our words: its name (put into `spell`), the value found, the value wanted."""
    problems = []
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        field = settings.model_fields.get(name)
        wanted = wanted_by(field) if field is not None else "a known key"
        problems.append(f"{spell.format(name)}: found {_shown(detail['input'])}, wanted {wanted}.")
    return list(dict.fromkeys(problems))  # a union reports each of its members


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def wanted_by(field: FieldInfo) -> str:
    """Describe the values that a field takes, for example `a number > 0`."""
    kinds = [_kind(member) for member in _members(field.annotation)]
    kinds[0] = f"{kinds[0]} {_limits(field.metadata)}".strip()
    return " or ".join(kinds)


def _limits(constraints: Iterable[Any]) -> str:
    return " and ".join(
        f"{sign} {getattr(constraint, name)}"
        for constraint in constraints
        for kind, name, sign in (
            (annotated_types.Gt, "gt", ">"),
            (annotated_types.Ge, "ge", "≥"),
            (annotated_types.Lt, "lt", "<"),
            (annotated_types.Le, "le", "≤"),
        )
        if isinstance(constraint, kind)
    )


def _members(annotation: Any) -> tuple[Any, ...]:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _takes_booleans(annotation: Any) -> bool:
    return annotation is bool or any(_takes_booleans(member) for member in typing.get_args(annotation))


def _kind(annotation: Any) -> str:
    if typing.get_origin(annotation) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is Annotated:
        member, *described = typing.get_args(annotation)
        constraints = [constraint for field in described for constraint in field.metadata]
        return f"{_kind(member)} {_limits(constraints)}".strip()
    if typing.get_origin(annotation) in (tuple, list):
        return "a list, each " + _kind(typing.get_args(annotation)[0])
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
    return names.get(annotation, "a path")
