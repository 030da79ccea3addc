"""Use a trained model from the command line.

python -m bert_pytorch.predict fill-mask --checkpoint runs/my_bert "The capital of [MASK] is Paris."
python -m bert_pytorch.predict answer --checkpoint runs/squad --context_file passage.txt "When was the bridge built?"
python -m bert_pytorch.predict tag --checkpoint runs/ner "Angela Merkel met Barack Obama in Berlin."
python -m bert_pytorch.predict classify --checkpoint runs/reviews --input_file reviews.txt > classes.jsonl
python -m bert_pytorch.predict embed --checkpoint runs/my_bert --output_file vectors.npy < sentences.txt
"""

import difflib
import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError, front_door
from bert_pytorch.inference.answer import AnswerCommandConfig, answer
from bert_pytorch.inference.classify import ClassifyConfig, classify
from bert_pytorch.inference.embed import EmbedConfig, embed
from bert_pytorch.inference.fill_mask import FillMaskConfig, fill_masks
from bert_pytorch.inference.tag import TagConfig, tag

PROGRAM = "python -m bert_pytorch.predict"


class Command(NamedTuple):
    """What a word after the program's name does."""

    settings: type[Settings]
    run: Callable[[Any, str], None]
    """Called with the settings and the program's name."""
    purpose: str


COMMANDS = {
    "fill-mask": Command(FillMaskConfig, fill_masks, "rank words for every [MASK] of a text"),
    "answer": Command(AnswerCommandConfig, answer, "answer questions about a passage"),
    "tag": Command(TagConfig, tag, "find entities in texts"),
    "classify": Command(ClassifyConfig, classify, "name the class of texts or of pairs of texts"),
    "embed": Command(EmbedConfig, embed, "make a vector of each text"),
}


def main() -> int:
    """Run the sub-command that was typed."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        _say(f"usage: {PROGRAM} COMMAND …\n")
        for name, command in COMMANDS.items():
            _say(f"  {name:<12}{command.purpose}; {PROGRAM} {name} --help lists its options")
        return 0 if words else 2
    if words[0] not in COMMANDS:
        raise ConfigError(PROGRAM, [_unknown_command(words[0])])
    command, program = COMMANDS[words[0]], f"{PROGRAM} {words[0]}"
    resolved = parse_settings(command.settings, words[1:], program=program, description=command.purpose)
    command.run(resolved.settings, program)
    return 0


def _unknown_command(word: str) -> str:
    known = ", ".join(COMMANDS)
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return (
        f"unknown command {word!r}: did you mean {near[0]}?" if near else f"unknown command {word!r}; there is {known}."
    )


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 the program's own output


if __name__ == "__main__":
    sys.exit(front_door(main))
