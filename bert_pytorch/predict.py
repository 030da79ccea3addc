"""Use a trained model from the command line.

python -m bert_pytorch.predict fill-mask --checkpoint runs/my_bert "The capital of [MASK] is Paris."
python -m bert_pytorch.predict fill-mask --checkpoint runs/my_bert --json < sentences.txt
"""

import difflib
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import tyro
from pydantic import Field

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError, InputError, front_door
from bert_pytorch.inference.fill_mask import Guess, MaskFiller
from bert_pytorch.records import MASK_TOKEN

PROGRAM = "python -m bert_pytorch.predict"
COMMANDS = {"fill-mask": "rank words for every [MASK] of a text"}
LATER = ("answer", "classify", "tag", "embed")


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message='Field name "json"')  # pydantic has a deprecated method of that name

    class FillMaskConfig(Settings):
        """Options of `fill-mask`."""

        texts: tyro.conf.Positional[tuple[str, ...]] = ()
        """Texts with [MASK] in them (byte-level BPE: or <mask>), each in quotes; without any, the lines of standard
        input."""
        checkpoint: Path | None = None
        """A ckpt_N.pt, a run's output folder, or a Hugging Face directory.  Required."""
        top_k: int = Field(5, ge=1)
        """Words shown for each mask."""
        json: bool = False  # type: ignore[assignment]
        """Print one JSON object a text instead of a table."""

        def combination_problems(self) -> Iterator[str]:
            """Say what is missing."""
            yield from super().combination_problems()
            if self.checkpoint is None:
                yield "--checkpoint is missing: name a ckpt_N.pt, a run's output folder or a Hugging Face directory."
            if not self.texts and sys.stdin.isatty():
                yield f'no text given: type one in quotes, such as "The capital of {MASK_TOKEN} is Paris."'


def main() -> int:
    """Run the sub-command that was typed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        _say(f"usage: {PROGRAM} COMMAND …\n")
        for command, purpose in COMMANDS.items():
            _say(f"  {command:<12}{purpose}; {PROGRAM} {command} --help lists its options")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        raise ConfigError(PROGRAM, [_unknown_command(words[0])])
    program = f"{PROGRAM} {words[0]}"
    resolved = parse_settings(FillMaskConfig, words[1:], program=program, description=COMMANDS[words[0]])
    fill_masks(resolved.settings, program)
    return 0


def fill_masks(config: FillMaskConfig, program: str) -> None:
    """Print the guesses for each text.

    Raises:
        ConfigError: naming each text on the command line that cannot be filled.
        InputError: at the first such line of standard input, or if the checkpoint cannot be used.
    """
    assert config.checkpoint is not None  # combination_problems saw to it
    filler = MaskFiller.load(config.checkpoint)
    problems = [problem for problem in map(filler.problem_with, config.texts) if problem is not None]
    if problems:
        raise ConfigError(program, problems)
    for text in config.texts or _lines_of_standard_input(filler):
        guesses = filler.fill(text, config.top_k)
        _say(_as_json(text, guesses) if config.json else _as_table(text, guesses, filler))


def _lines_of_standard_input(filler: MaskFiller) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(sys.stdin, start=1):
            text = line.strip()
            if not text:
                continue
            problem = filler.problem_with(text)
            if problem is not None:
                raise InputError(f"standard input, line {number}: {problem}")
            yield text
    except UnicodeDecodeError:
        raise InputError(f"standard input, after line {number}: it is not UTF-8 text.") from None
    if not number:
        raise InputError(f"standard input is empty: give lines with {MASK_TOKEN} in them, or a text in quotes.")


def _as_table(text: str, guesses: list[list[Guess]], filler: MaskFiller) -> str:
    lines = [text]
    for number, ranked in enumerate(guesses, start=1):
        if len(guesses) > 1:
            lines.append(f"  {filler.mask_token} {number}")
        lines += [f"  {guess.probability:7.2%}  {_readable(*filler.tokenizer.piece(guess.token))}" for guess in ranked]
    return "\n".join(lines) + "\n"


def _readable(piece: str, joins: bool) -> str:
    if not piece.strip() or not piece.isprintable():  # byte-level BPE has tokens for spaces and control characters
        piece = repr(piece)
    return f"…{piece}  (continues the word before)" if joins else piece


def _as_json(text: str, guesses: list[list[Guess]]) -> str:
    masks = [[guess._asdict() for guess in ranked] for ranked in guesses]
    return json.dumps({"text": text, "masks": masks}, ensure_ascii=False)


def _unknown_command(word: str) -> str:
    known = ", ".join(COMMANDS)
    if word in LATER:
        return f"{word} is not in this version yet; there is {known}."
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return (
        f"unknown command {word!r}: did you mean {near[0]}?" if near else f"unknown command {word!r}; there is {known}."
    )


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 the program's own output


if __name__ == "__main__":
    sys.exit(front_door(main))
