"""What stands in a checkpoint file, and checking that it does.

A file is one dict of plain values and tensors, saved by `torch.save` and readable by `torch.load(weights_only=True)`.
Whoever needs the weights alone (`predict`, `convert`, fine-tuning) takes `Weights`; resuming takes all, `Checkpoint`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from bert_pytorch.errors import InputError
from bert_pytorch.records import Vocabulary
from bert_pytorch.vocabulary import merge_lines, parse_merges

FORMAT_VERSION = 1
"""Raised when an entry changes its meaning; files of other versions are refused, never guessed at."""


class NotOursError(InputError):
    """The file was read, and is not a checkpoint of this project: another program may have written it."""


class DataPosition(NamedTuple):
    """Where training stands in its data: what completed updates have consumed, not what was read ahead."""

    seed: int
    """Seed of the order of samples and of their masks."""
    epoch: int
    """Passes over the data that are complete."""
    samples: int
    """Sequences trained on since the phase began, over all epochs and ranks."""


class Weights(NamedTuple):
    """The part of a checkpoint that a model can be built and used from."""

    model: dict[str, torch.Tensor]
    """State dict under Hugging Face's BERT names, on the CPU."""
    model_config: dict[str, Any]
    """Shape of the model: the keys of `config/models/*.json`."""
    vocabulary: list[str]
    """Token of each id."""
    lowercase: bool
    """Whether text is lower-cased before it is split."""
    merges: list[str] | None = None
    """Merges of byte-level BPE by rank, each `left right`; None for WordPiece, as in files without this entry."""
    add_prefix_space: bool = False
    """Byte-level BPE: whether a text's first word is spelled with a space before it."""

    def tokenizer_vocabulary(self) -> Vocabulary:
        """Return these entries as the record that `tokenization` takes."""
        return _vocabulary_of(self)


class Checkpoint(NamedTuple):
    """Everything that continuing a run needs."""

    model: dict[str, torch.Tensor]
    """State dict under Hugging Face's BERT names."""
    model_config: dict[str, Any]
    """Shape of the model."""
    vocabulary: list[str]
    """Token of each id."""
    lowercase: bool
    """Whether text is lower-cased before it is split."""
    step: int
    """Updates done, phases added up; the N of `ckpt_{N}.pt`."""
    phase: int
    """1 for the first phase."""
    phase_start: int
    """Updates done before this phase."""
    phase_end: bool
    """Whether this is the last update of its phase; such files are never rotated away."""
    data_position: DataPosition
    """Where the data goes on."""
    optimizer: dict[str, Any]
    """`optimizer.state_dict()`: moments and step counts; its hyper-parameters are not used again."""
    scaler: dict[str, Any] | None = None
    """`GradScaler.state_dict()` in fp16 runs."""
    preconditioner: dict[str, Any] | None = None
    """K-FAC's state, with --kfac."""
    choices: dict[str, Any] = {}  # noqa: RUF012 never modified
    """What the run chose by measuring, so that a resumed run chooses the same."""
    run_config: dict[str, Any] = {}  # noqa: RUF012 never modified
    """Settings of the run in plain values, to print what a second start changes."""
    merges: list[str] | None = None
    """Merges of byte-level BPE, as in `Weights`."""
    add_prefix_space: bool = False
    """Byte-level BPE's, as in `Weights`."""

    def tokenizer_vocabulary(self) -> Vocabulary:
        """Return vocabulary, casing and merges as the record that `tokenization` takes."""
        return _vocabulary_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that is saved."""
        return {**self._asdict(), "data_position": self.data_position._asdict(), "format_version": FORMAT_VERSION}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> "Checkpoint":
        """Check a loaded dict; entries this version does not know are ignored.

        Raises:
            InputError: naming every entry of file `where` that is missing or of a wrong type.
        """
        check_version(values, where)
        _check(values, _WEIGHTS | _TRAINING, where)
        position = DataPosition(**{name: values["data_position"][name] for name in DataPosition._fields})
        known = {name: values[name] for name in cls._fields if name in values}
        return cls(**{**known, "data_position": position})


def weights_from_dict(values: Mapping[str, Any], where: str) -> Weights:
    """Take the weights alone out of a loaded dict.

    Raises:
        InputError: naming every entry of file `where` that is missing or of a wrong type.
    """
    check_version(values, where)
    _check(values, _WEIGHTS, where)
    return Weights(**{name: values[name] for name in Weights._fields if name in values})


def vocabulary_entries(vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the entries of a checkpoint that hold a vocabulary, in plain values."""
    return {
        "vocabulary": list(vocabulary.tokens),
        "lowercase": vocabulary.lowercase,
        "merges": None if vocabulary.merges is None else merge_lines(vocabulary),
        "add_prefix_space": vocabulary.add_prefix_space,
    }


def _vocabulary_of(entries: Weights | Checkpoint) -> Vocabulary:
    tokens = tuple(entries.vocabulary)
    merges = None if entries.merges is None else parse_merges(entries.merges, tokens)
    return Vocabulary(tokens, entries.lowercase, merges, entries.add_prefix_space)


def check_version(values: Any, where: str) -> None:
    """Raise `InputError` unless `values` is a dict of this format version, `NotOursError` if of none."""
    if not isinstance(values, Mapping) or "format_version" not in values:
        entries = ", ".join(map(str, list(values)[:5])) if isinstance(values, Mapping) else type(values).__name__
        raise NotOursError(
            f"{where}: it is not a checkpoint of bert_pytorch: it has no format_version "
            f"(found: {entries or 'nothing'}). Name a ckpt_N.pt that run_pretraining.py wrote."
        )
    version = values["format_version"]
    if version != FORMAT_VERSION:
        raise InputError(
            f"{where}: its format_version is {version!r}, this version of bert_pytorch reads {FORMAT_VERSION}. "
            "Use the version that wrote it: git log -- bert_pytorch/checkpoints/format.py"
        )


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, torch.Tensor) for item in value.values())


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_position(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_count(value.get(name)) for name in DataPosition._fields)


def _is_optimizer(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("state"), dict) and isinstance(value.get("param_groups"), list)
    )


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_WEIGHTS = {
    "model": ("a dict of tensors", _is_state_dict),
    "model_config": ("a dict", lambda value: isinstance(value, dict)),
    "vocabulary": ("a list of texts", _is_text_list),
    "lowercase": ("true or false", lambda value: isinstance(value, bool)),
}
_OPTIONAL = {
    "merges": ("a list of texts", lambda value: value is None or _is_text_list(value)),
    "preconditioner": ("a dict", lambda value: value is None or isinstance(value, dict)),
    "add_prefix_space": ("true or false", lambda value: isinstance(value, bool)),
}
_TRAINING = {
    "step": ("a whole number >= 0", _is_count),
    "phase": ("a whole number >= 0", _is_count),
    "phase_start": ("a whole number >= 0", _is_count),
    "phase_end": ("true or false", lambda value: isinstance(value, bool)),
    "data_position": ("a dict of seed, epoch and samples, each a whole number >= 0", _is_position),
    "optimizer": ("an optimizer's state dict", _is_optimizer),
}


def _check(values: Mapping[str, Any], wanted: dict[str, Any], where: str) -> None:
    problems = []
    for name, (description, is_right) in wanted.items():
        if name not in values:
            problems.append(f'"{name}" is missing')
        elif not is_right(values[name]):
            problems.append(f'"{name}" is {_short(values[name])}, wanted {description}')
    for name, (description, is_right) in _OPTIONAL.items():
        if name in values and not is_right(values[name]):
            problems.append(f'"{name}" is {_short(values[name])}, wanted {description}')
    if not problems and values.get("merges") is not None:
        try:
            parse_merges(values["merges"], values["vocabulary"])
        except ValueError as error:
            problems.append(f'"merges": {error} of its vocabulary')
    if problems:
        raise InputError(f"{where}: {'; '.join(problems)}. Name a ckpt_N.pt that run_pretraining.py wrote.")


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | bool | None) else f"a {type(value).__name__}"
