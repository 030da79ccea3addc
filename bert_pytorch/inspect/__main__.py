"""Look inside: `python -m bert_pytorch.inspect shard FILE_OR_FOLDER …`.

python -m bert_pytorch.inspect shard corpus/encoded/sequences_lowercase_max_seq_len_128_next_seq_task_true
python -m bert_pytorch.inspect shard train_0.hdf5 --index 0 17 --color always | less -R
python -m bert_pytorch.inspect batch runs/my_bert --step 100
python -m bert_pytorch.inspect environment runs/my_bert corpus
"""

import difflib
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import EXIT_DONE, EXIT_USAGE, ConfigError, front_door
from bert_pytorch.inspect.batch import BatchConfig, describe_batch
from bert_pytorch.inspect.environment import EnvironmentConfig, describe_environment
from bert_pytorch.inspect.shard import ShardConfig, describe_shards

PROGRAM = "python -m bert_pytorch.inspect"
_COMMANDS: dict[str, tuple[str, type[Settings], Callable[[Any], Iterator[str]]]] = {
    "shard": ("a shard's header and some of its rows, decoded, with masks marked", ShardConfig, describe_shards),
    "environment": ("versions, machine, GPUs and scheduler, for a bug report", EnvironmentConfig, describe_environment),
    "batch": ("the samples and masks of an update of a run, rebuilt and decoded", BatchConfig, describe_batch),
}
_LATER = ("checkpoint",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return front_door(lambda: _run(words))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        _say(f"usage: {PROGRAM} COMMAND …\n")
        for command, (purpose, _, _) in _COMMANDS.items():
            _say(f"  {command:<13}{purpose}; {PROGRAM} {command} --help lists its options")
        return EXIT_DONE if words else EXIT_USAGE
    if words[0] not in _COMMANDS:
        raise ConfigError(PROGRAM, [_unknown(words[0])])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that knows no Unicode still shows the rest
    program = f"{PROGRAM} {words[0]}"
    _, settings, describe = _COMMANDS[words[0]]
    resolved = parse_settings(settings, words[1:], program=program, description=settings.__doc__ or "")
    for line in describe(resolved.settings):
        _say(line)
    return EXIT_DONE


def _unknown(word: str) -> str:
    known = ", ".join(_COMMANDS)
    if word in _LATER:
        return f"{word} is not in this version; it has {known}."
    near = difflib.get_close_matches(word, _COMMANDS, n=1)
    return f"unknown command {word!r}: " + (f"did you mean {near[0]}?" if near else f"it has {known}.")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 a front door


if __name__ == "__main__":
    sys.exit(main())
