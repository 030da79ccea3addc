"""The command line: precedence, origins, spellings, and what is said about wrong words."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError
from tests.support.commands import run_python


class OptimizerPart(Settings):
    """A component's part."""

    renamed_flags: ClassVar[dict[str, str]] = {"lr": "--learning_rate"}

    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the schedule, reached after the warm-up."""
    optimizer: Literal["lamb", "adamw"] = "lamb"
    """Which rule updates the weights."""


class RunSettings(OptimizerPart):
    """A run made of a component and its own keys."""

    renamed_flags: ClassVar[dict[str, str]] = {"max_sentences": "--batch_size"}

    config_file: Path | None = None
    """JSON or YAML file."""
    seed: int = Field(42, ge=0)
    """Seed of everything."""
    batch_size: int = Field(8, ge=1, le=64)
    """Sequences of an update."""
    fp16: bool = False
    """Half precision."""
    steps: int | None = None
    """Updates of this session."""
    run_name: str | None = None
    """Name for people."""
    lowercase: bool | None = None
    """Casing where no file says it."""
    input_dir: Path | None = None
    """Folder of shards."""
    lengths: tuple[int, ...] = (128,)
    """Sequence lengths."""

    def combination_problems(self) -> Iterator[str]:
        """Refuse half precision with adamw, and batches of more than the seed."""
        yield from super().combination_problems()
        if self.fp16 and self.optimizer == "adamw":
            yield "fp16 and adamw do not go together."
        if self.batch_size > self.seed:
            yield "batch_size is larger than seed."


class WordsSettings(Settings):
    """A tool with words that belong to no flag."""

    texts: tyro.conf.Positional[tuple[str, ...]] = ()
    """Texts."""
    top: int = 5
    """How many."""


def parse(*argv: str):
    return parse_settings(RunSettings, argv, program="run.py", description="Run.")


def problems_of(*argv: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        parse(*argv)
    assert refused.value.exit_code == 2
    *problems, last = refused.value.problems
    assert last == "run.py --help lists all options."
    return problems


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 7\nlearning_rate: 6e-3\nfp16: true\n")
    return str(path)


def test_nothing_given_is_all_defaults():
    resolved = parse()
    assert resolved.settings == RunSettings()
    assert set(resolved.origins.values()) == {"default"}
    assert set(resolved.origins) == set(RunSettings.model_fields)


def test_the_command_line_lies_over_the_file_wherever_the_flag_stands(file):
    after = parse("--config_file", file, "--seed", "9")
    before = parse("--seed", "9", "--config_file", file)
    assert after == before
    assert after.settings.seed == 9
    assert after.settings.learning_rate == 0.006
    assert after.settings.fp16 is True
    assert after.settings.batch_size == 8


def test_a_flag_that_repeats_the_default_still_lies_over_the_file(file):
    resolved = parse("--config_file", file, "--seed", "42", "--no-fp16")
    assert resolved.settings.seed == 42
    assert resolved.settings.fp16 is False


def test_origins_say_where_each_value_came_from(file):
    origins = parse("--config_file", file, "--seed", "9").origins
    assert origins["seed"] == "command line"
    assert origins["config_file"] == "command line"
    assert origins["learning_rate"] == file
    assert origins["batch_size"] == "default"


@pytest.mark.parametrize(
    "words",
    [["--input_dir", "x y"], ["--input-dir", "x y"], ["--input_dir=x y"], ["--input-dir=x y"]],
)
def test_both_spellings_and_both_ways_to_give_a_value_work(words):
    assert parse(*words).settings.input_dir == Path("x y")


@pytest.mark.parametrize(("word", "value"), [("--fp16", True), ("--no-fp16", False), ("--no_fp16", False)])
def test_booleans_are_a_flag_and_its_negation(word, value):
    resolved = parse(word)
    assert resolved.settings.fp16 is value
    assert resolved.origins["fp16"] == "command line"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--seed", "50.0"], "seed", 50),
        (["--learning_rate", "6e-3"], "learning_rate", 0.006),
        (["--steps", "None"], "steps", None),
        (["--steps", "none"], "steps", None),
        (["--steps", "7"], "steps", 7),
        (["--run_name", ""], "run_name", ""),
        (["--run_name=--x=y"], "run_name", "--x=y"),
        (["--run_name", "-5"], "run_name", "-5"),
        (["--lengths", "128", "512"], "lengths", (128, 512)),
        (["--lengths=512"], "lengths", (512,)),
    ],
)
def test_a_value_is_read_as_its_field_says(words, name, value):
    assert getattr(parse(*words).settings, name) == value


def test_words_without_a_flag_go_to_the_positional_field():
    for argv in (["a b", "c", "--top", "3"], ["--top", "3", "a b", "c"], ["a b", "--top=3", "c"]):
        settings = parse_settings(WordsSettings, argv, program="tool", description="Tool.").settings
        assert (settings.texts, settings.top) == (("a b", "c"), 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sed", "4"], "unknown flag --sed: did you mean --seed?"),
        (["--batch-sise=4"], "unknown flag --batch-sise: did you mean --batch_size?"),
        (["--qqq", "4"], "unknown flag --qqq."),
        (["-s", "4"], "unknown flag -s."),
        (["--no-seed"], "unknown flag --no-seed: did you mean --seed?"),
        (["--max-sentences", "4"], "--max-sentences is not a flag here: use --batch_size."),
        (["--max_sentences=4"], "--max_sentences is not a flag here: use --batch_size."),
        (["--lr", "4"], "--lr is not a flag here: use --learning_rate."),
        (["word"], "'word' belongs to no option; options start with --."),
        (["--seed", "4", "5"], "'5' belongs to no option; options start with --."),
        (["--seed"], "--seed: no value follows it."),
        (["--input_dir", "--fp16"], "--input_dir: no value follows it."),
        (["--seed", "4", "--seed=4"], "--seed stands twice; keep one of them."),
        (["--fp16", "--no-fp16"], "--fp16 stands twice; keep one of them."),
        (["--fp16", "true"], "--fp16 takes no value, found 'true': write --fp16 or --no-fp16."),
        (["--fp16=false"], "--fp16 takes no value, found 'false': write --fp16 or --no-fp16."),
        (["--no-fp16=true"], "--no-fp16 takes no value, found 'true': write --fp16 or --no-fp16."),
        (["--seed", "five"], "--seed: found 'five', wanted a whole number ≥ 0."),
        (["--seed", "-5"], "--seed: found '-5', wanted a whole number ≥ 0."),
        (["--seed", "1.5"], "--seed: found '1.5', wanted a whole number ≥ 0."),
        (["--seed", "None"], "--seed: found 'None', wanted a whole number ≥ 0."),
        (["--batch_size", "65"], "--batch_size: found '65', wanted a whole number ≥ 1 and ≤ 64."),
        (["--learning_rate", "nan"], "--learning_rate: found 'nan', wanted a number > 0."),
        (["--learning_rate", "inf"], "--learning_rate: found 'inf', wanted a number > 0."),
        (["--learning_rate", "1e999"], "--learning_rate: found '1e999', wanted a number > 0."),
        (["--steps", "many"], "--steps: found 'many', wanted a whole number or none."),
        (["--optimizer", "sgd"], "--optimizer: found 'sgd', wanted one of lamb, adamw."),
        (["--lengths", "128", "long"], "--lengths: found 'long', wanted a list, each a whole number."),
    ],
)
def test_a_wrong_word_is_one_line(words, message):
    assert problems_of(*words) == [message]


def test_all_problems_of_the_command_line_come_at_once():
    words = ["--sed", "4", "--seed", "x", "stray", "--optimizer", "sgd", "--lr", "1"]
    assert len(problems_of(*words)) == 5


def test_layers_are_told_one_after_the_other(file, tmp_path):
    Path(file).write_text("sed: 1\noptimizer: sgd\nseed: x\n")
    assert problems_of("--config_file", file, "--sed", "4") == ["unknown flag --sed: did you mean --seed?"]
    with pytest.raises(ConfigError, match=re.escape(file)) as refused:
        parse("--config_file", file, "--optimizer", "adamw", "--fp16")
    assert len(refused.value.problems) == 3
    Path(file).write_text("seed: 2\n")
    with pytest.raises(ConfigError, match=r"^run\.py: ") as refused:
        parse("--config_file", file, "--optimizer", "adamw", "--fp16")
    assert refused.value.problems == ["fp16 and adamw do not go together.", "batch_size is larger than seed."]


def test_a_long_wrong_value_is_shown_by_its_beginning():
    (problem,) = problems_of("--seed", "x" * 10_000)
    assert len(problem) < 150


@given(st.sampled_from(sorted(set(RunSettings.model_fields) - {"config_file"})), st.text(max_size=8))
def test_any_value_is_accepted_or_told_and_never_ends_the_program(name, value):
    try:
        parse(f"--{name}={value}")
    except ConfigError as error:
        assert error.problems  # noqa: PT017


def test_help_shows_every_field_with_its_docstring_and_default(tmp_path):
    code = (
        "import sys\nfrom bert_pytorch.config.command_line import parse_settings\n"
        "from tests.unit.config.test_command_line import RunSettings\n"
        "parse_settings(RunSettings, sys.argv[1:], program='run.py', description='What it does.')\n"
    )
    for words in (["--help"], ["-h"], ["--seed", "wrong", "--help"]):
        result = run_python("-c", code, *words, env={"COLUMNS": "200"})
        assert result.code == 0, result
        text = " ".join(re.sub(r"[│╭╰─╮╯]", " ", result.stdout).split())
        assert "What it does." in text
        for name, field in RunSettings.model_fields.items():
            assert f"--{name}" in text or f"--{name.replace('_', '-')}" in text
            assert field.description
            assert field.description.rstrip(".") in text
        assert "(default: 0.001)" in text
        assert "--lowercase, --no_lowercase Casing where no file says it. (default: None)" in text
        assert not result.stderr
