"""`Settings`, the base of all configuration: immutable, documented, composed flat."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from bert_pytorch.config.settings import Settings, wanted_by
from bert_pytorch.errors import ConfigError


class Left(Settings):
    """One component."""

    renamed_flags: ClassVar[dict[str, str]] = {"old_left": "--left"}

    left: int = Field(1, ge=0)
    """Left."""

    def combination_problems(self) -> Iterator[str]:
        """Refuse 13."""
        yield from super().combination_problems()
        if self.left == 13:
            yield "left is 13."


class Right(Settings):
    """Another component."""

    renamed_flags: ClassVar[dict[str, str]] = {"old_right": "--right"}

    right: float = 0.5
    """Right."""

    def combination_problems(self) -> Iterator[str]:
        """Refuse 13."""
        yield from super().combination_problems()
        if self.right == 13:
            yield "right is 13."


class Both(Left, Right):
    """A run of both."""

    renamed_flags: ClassVar[dict[str, str]] = {"old": "--left and --right"}

    path: Path | None = None
    """A path."""
    share: float = Field(0.0, ge=0, lt=1)
    """A share."""
    sizes: tuple[int, ...] = ()
    """Sizes."""


def test_a_run_is_each_of_its_components_and_all_keys_stand_flat():
    run = Both(left=3, right=2)
    assert isinstance(run, Left)
    assert isinstance(run, Right)
    assert {"left", "right", "path"} <= set(Both.model_fields)


def test_every_field_carries_its_docstring():
    found = {name: Both.model_fields[name].description for name in ("left", "right", "path")}
    assert found == {"left": "Left.", "right": "Right.", "path": "A path."}


def test_settings_cannot_be_changed_after_the_check():
    run = Both()
    with pytest.raises(ValidationError):
        run.left = 4  # type: ignore[misc]


def test_combinations_of_all_components_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        Both(left=13, right=13).checked("run.json")
    assert sorted(refused.value.problems) == ["left is 13.", "right is 13."]
    assert Both().checked("run.json") == Both()


def test_names_of_ancestors_are_collected_over_components():
    assert Both.all_renamed_flags() == {"old_left": "--left", "old_right": "--right", "old": "--left and --right"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("left", "a whole number ≥ 0"),
        ("right", "a number"),
        ("path", "a path or none"),
        ("share", "a number ≥ 0 and < 1"),
        ("sizes", "a list, each a whole number"),
    ],
)
def test_what_a_field_takes_is_said_in_words(name, words):
    assert wanted_by(Both.model_fields[name]) == words
