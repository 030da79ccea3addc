"""Configuration files: what JSON and YAML mean here, and what is said about a wrong one."""

import json
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from bert_pytorch.config.files import check_file_values, read_mapping
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError


class FileSettings(Settings):
    """What the files of these tests may hold."""

    renamed_flags = {"max_sentences": "batch_size"}  # noqa: RUF012

    seed: int = Field(42, ge=0)
    """Seed."""
    learning_rate: float = Field(1e-3, gt=0)
    """Rate."""
    fp16: bool = False
    """Half."""
    kind: Literal["a", "b"] = "a"
    """Kind."""
    run_name: str | None = None
    """Name."""
    lengths: tuple[int, ...] = ()
    """Lengths."""


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> FileSettings:
    values = read_mapping(path)
    check_file_values(values, FileSettings, path)
    return FileSettings.model_validate(values)


def refusal(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: ")
    return refused.value.problems


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.YAML"])
@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("learning_rate: 6e-3", 0.006),
        ("learning_rate: 6.0E-3", 0.006),
        ("learning_rate: 1", 1.0),
        ("seed: 010", 10),
        ("seed: 1e3", 1000),
        ("seed: +5", 5),
        ("fp16: true", True),
        ("fp16: yes", True),
        ("fp16: off", False),
        ("run_name: '1e5'", "1e5"),
        ('run_name: "12"', "12"),
        ("run_name: 2020-01-01", "2020-01-01"),
        ("run_name: 2020-99-99", "2020-99-99"),
        ("run_name: never", "never"),
        ("run_name: nan", "nan"),
        ("run_name: ~", None),
        ("run_name:", None),
        ("lengths: [128, 512]", (128, 512)),
        ("lengths:\n  - 128\n  - 512", (128, 512)),
    ],
)
def test_yaml_means_what_it_looks_like(tmp_path, name, line, value):
    found = getattr(read(written(tmp_path, name, line + "  # a remark\n")), line.partition(":")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", ["a.json", "a"])
def test_json_is_what_has_no_yaml_ending(tmp_path, name):
    content = b'\xef\xbb\xbf{"seed": 7, "run_name": "\xc3\xa9", "lengths": [1]}'
    assert read(written(tmp_path, name, content)) == FileSettings(seed=7, run_name="é", lengths=(1,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"seed": 1,\n "fp16": }', "line 2, column 10: a value is wanted here."),
        ("a.json", '{"seed": 1,}', "line 1, column 12: a key in double quotes is wanted here"),
        ("a.json", "{'seed': 1}", "line 1, column 2: a key in double quotes is wanted here"),
        ("a.json", '{"seed": 1\n "fp16": true}', "line 2, column 2: a comma is wanted here."),
        ("a.json", '{"seed" 1}', "line 1, column 9: a colon is wanted here."),
        ("a.json", '{"seed": 1}\n{}', "line 2, column 1: something stands after the end."),
        ("a.json", '{"run_name": "abc}', "line 1, column 14: this text has no closing quote."),
        ("a.json", '{"run_name": "a\nb"}', "line 1, column 16: a text goes on over the end of its line"),
        ("a.json", "seed: 1", "line 1, column 1: a value is wanted here. Mend the line; a YAML file ends in .yaml."),
        ("a.json", '{"seed": 1, "seed": 2}', 'the key "seed" stands twice.'),
        ("a.json", "[1]", "found a list at the top, wanted keys with values"),
        ("a.json", "", "found nothing at the top, wanted keys with values"),
        ("a.json", " \n", "found nothing at the top, wanted keys with values"),
        ("a.json", "null", "found nothing at the top, wanted keys with values"),
        ("a.json", b"\x93\x00\xff", "it is not UTF-8 text"),
        ("a.json", "[" * 100_000, "this is no configuration"),
        ("a.json", '{"seed": ' + "9" * 5_000 + "}", "this is no configuration"),
        ("a.yaml", "seed: 1\nfp16: [1\n", "line 3, column 1: this is not YAML."),
        ("a.yaml", "\tseed: 1", "line 1, column 1: this is not YAML."),
        ("a.yaml", "seed: 1\nseed: 2", 'the key "seed" stands twice.'),
        ("a.yaml", "seed: 1\n---\nseed: 2", "line 2, column 1: this is not YAML."),
        ("a.yaml", "seed: !!python/object/apply:os.system [ls]", "line 1, column 7: this is not YAML."),
        ("a.yaml", "seed: 1\x00", "this is not YAML."),
        ("a.yaml", "- 1", "found a list at the top"),
        ("a.yaml", "", "found nothing at the top"),
        ("a.yaml", "[" * 5_000, "this is no configuration"),
    ],
)
def test_a_file_that_is_no_configuration_is_told_with_its_line(tmp_path, name, content, message):
    (problem,) = refusal(written(tmp_path, name, content))
    assert problem.startswith(message)
    assert problem.endswith((".", "}."))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"seed": True}, '"seed": found True, wanted a whole number ≥ 0.'),
        ({"learning_rate": False}, '"learning_rate": found False, wanted a number > 0.'),
        ({"lengths": [64, True]}, '"lengths": found [64, True], wanted a list, each a whole number.'),
        ({"learning_rate": float("nan")}, '"learning_rate": found nan, wanted a number > 0.'),
        ({"learning_rate": float("inf")}, '"learning_rate": found inf, wanted a number > 0.'),
        ({"learning_rate": "fast"}, "\"learning_rate\": found 'fast', wanted a number > 0."),
        ({"seed": 1.5}, '"seed": found 1.5, wanted a whole number ≥ 0.'),
        ({"seed": None}, '"seed": found None, wanted a whole number ≥ 0.'),
        ({"seed": [1]}, '"seed": found [1], wanted a whole number ≥ 0.'),
        ({"fp16": 3}, '"fp16": found 3, wanted true or false.'),
        ({"run_name": 3}, '"run_name": found 3, wanted a text or none.'),
        ({"kind": "c"}, "\"kind\": found 'c', wanted one of a, b."),
        ({"lengths": 64}, '"lengths": found 64, wanted a list, each a whole number.'),
        ({"sed": 1}, 'unknown key "sed": did you mean "seed"?'),
        ({"qqqq": 1}, 'unknown key "qqqq": --help lists the known ones.'),
        ({"max_sentences": 1}, '"max_sentences" is not a key here: use batch_size.'),
    ],
)
def test_a_wrong_key_or_value_is_told(tmp_path, content, message):
    assert refusal(written(tmp_path, "a.json", json.dumps(content))) == [message]


def test_all_problems_of_a_file_come_at_once(tmp_path):
    content = {"sed": 1, "kind": "c", "seed": True, "qqqq": 2, "learning_rate": -1}
    assert len(refusal(written(tmp_path, "a.json", json.dumps(content)))) == 5


@pytest.mark.parametrize(
    ("path", "message"), [("missing.json", "no such file"), ("", "it is a folder"), ("f/x.json", "no such file")]
)
def test_a_path_that_is_no_file_is_told(tmp_path, path, message):
    (tmp_path / "f").write_text("")
    (problem,) = refusal(tmp_path / path)
    assert message in problem


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,-#&*!|>\n\t 01eEabé<', max_size=40).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_file_it_is_read_or_told(tmp_path, content):
    for name in ("a.json", "a.yaml"):
        try:
            read(written(tmp_path, name, content))
        except ConfigError as error:
            assert error.problems  # noqa: PT017
