"""Weights in and out: `python -m bert_pytorch.convert SRC DST [--to huggingface|bert_pytorch|nvidia|onnx]`.

python -m bert_pytorch.convert runs/my_bert my_bert_hf
python -m bert_pytorch.convert ckpt_8601.pt bert.pt --model_config_file bert_large_uncased --vocab_file vocab.txt
python -m bert_pytorch.convert downloads/bert-base-uncased bert.onnx
"""

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import EXIT_DONE, InputError, front_door
from bert_pytorch.interop.huggingface import CONFIG, export_huggingface
from bert_pytorch.interop.matching import LoadedWeights, is_head
from bert_pytorch.interop.nvidia import CHECKPOINT_FILE, Hints, export_nvidia
from bert_pytorch.interop.onnx import export_onnx
from bert_pytorch.interop.own import export_own
from bert_pytorch.interop.sources import built, load_source

PROGRAM = "python -m bert_pytorch.convert"
NAMES_SHOWN = 20
HEADS = {"cls.predictions.": "masked-LM head", "cls.seq_relationship.": "next-sentence head", "bert.pooler.": "pooler"}

Format = Literal["huggingface", "bert_pytorch", "nvidia", "onnx"]

logger = logging.getLogger(__name__)


class ConvertConfig(Settings):
    """Convert a pretrained encoder.

    SRC is recognised by content: a ckpt_N.pt or a run's output folder of this project, a Hugging Face directory, a
    ckpt_N.pt of NVIDIA's DeepLearningExamples or of gpauloski/BERT-PyTorch.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """SRC and DST: what to read, and the file (.pt, .onnx) or folder to write."""
    to: Format | None = None
    """What to write: a Hugging Face folder; bert_pytorch, a .pt file; nvidia, a folder with ckpt_0.pt, bert_config.json
    and vocab.txt; onnx, a file for onnxruntime.  By default as DST ends: .pt, .onnx, else a Hugging Face folder."""
    model_config_file: str | None = None
    """Shape of an NVIDIA checkpoint: a JSON file or a shipped one's name; by default bert_config.json beside it."""
    vocab_file: Path | None = None
    """Vocabulary of an NVIDIA checkpoint: a file or a folder with one; by default vocab.txt beside it."""
    lowercase: bool | None = None
    """Casing of that vocabulary where it does not tell its own."""
    allow_missing: bool = False
    """Give parts of the encoder that SRC lacks their initial values instead of refusing; heads may always lack."""
    allow_unexpected: bool = False
    """Leave out weights in SRC that the model has no place for, such as a classifier's, instead of refusing."""
    overwrite: bool = False
    """Replace what is at DST."""

    def combination_problems(self) -> Iterator[str]:
        """Say what is missing or contradictory."""
        yield from super().combination_problems()
        if len(self.paths) != 2:
            yield f"wanted two paths, SRC and DST, found {len(self.paths)}: {PROGRAM} runs/my_bert my_bert_hf"
        elif (ending := TARGETS[self.target].ending) and self.destination.suffix != ending:
            yield f"--to {self.target} writes a file: found {self.destination}, wanted a name that ends in {ending}."
        elif not ending and self.destination.suffix in SUFFIXES:
            yield f"--to {self.target} writes a folder: found {self.destination}; name a folder."

    @property
    def source(self) -> Path:
        """SRC."""
        return self.paths[0]

    @property
    def destination(self) -> Path:
        """DST."""
        return self.paths[1]

    @property
    def target(self) -> Format:
        """What is written."""
        return self.to or SUFFIXES.get(self.destination.suffix, "huggingface")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert what was typed and return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return front_door(lambda: _run(words))


def _run(words: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    resolved = parse_settings(ConvertConfig, words, program=PROGRAM, description=inspect.getdoc(ConvertConfig) or "")
    for line in convert(resolved.settings):
        print(line)  # noqa: T201 a front door
    return EXIT_DONE


def convert(config: ConvertConfig) -> list[str]:
    """Read, check, write; return what to tell.

    Raises:
        InputError: if SRC cannot be used, DST is there already, or weights are missing or unexpected and not allowed.
        ConfigError: if the shape or vocabulary of SRC are not known.
        MissingDependencyError: if the target needs a library that is not installed.
    """
    target = TARGETS[config.target]
    sign = config.destination / target.sign if target.sign else config.destination
    if sign.exists() and not config.overwrite:
        raise InputError(f"{sign}: it exists already. Choose another DST, or replace it: --overwrite")
    hints = Hints(config.model_config_file, config.vocab_file, config.lowercase, config.allow_missing)
    weights = load_source(config.source, hints)
    _check_unexpected(weights, config)
    told = []
    if absent := [name for name in weights.missing if not is_head(name)]:
        weights = _with_initial_values(weights, absent)
        told.append(f"begins at its initial values: {_listed(absent)}")
    told.append(target.write(config.destination, weights))
    lacking = [head for prefix, head in HEADS.items() if any(name.startswith(prefix) for name in weights.missing)]
    return [*told, f"lacks, as its source: {', '.join(lacking)}"] if lacking else told


def _check_unexpected(weights: LoadedWeights, config: ConvertConfig) -> None:
    if not weights.unexpected:
        return
    listed = _listed(weights.unexpected)
    if not config.allow_unexpected:
        raise InputError(
            f"{config.source}: {len(weights.unexpected)} weights have no place in this model and would be lost: "
            f"{listed}. Leave them out with --allow_unexpected, or name another source."
        )
    logger.warning("left out: %s", listed)


def _with_initial_values(weights: LoadedWeights, absent: Sequence[str]) -> LoadedWeights:
    initial = built(weights).model.state_dict()
    state_dict = {**weights.state_dict, **{name: initial[name] for name in absent}}
    return weights._replace(state_dict=state_dict, missing=tuple(name for name in weights.missing if is_head(name)))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _write_huggingface(folder: Path, weights: LoadedWeights) -> str:
    export_huggingface(folder, weights.state_dict, weights.config, weights.vocabulary)
    return f"Hugging Face folder: {folder} (AutoModel.from_pretrained opens it)"


def _write_own(path: Path, weights: LoadedWeights) -> str:
    export_own(path, weights)
    return f"checkpoint: {path} (--init_checkpoint and predict take it)"


def _write_nvidia(folder: Path, weights: LoadedWeights) -> str:
    export_nvidia(folder, weights.state_dict, weights.config, weights.vocabulary)
    return f"NVIDIA's layout: {folder / CHECKPOINT_FILE} with bert_config.json and vocab.txt"


def _write_onnx(path: Path, weights: LoadedWeights) -> str:
    return f"ONNX: {path} ({export_onnx(path, built(weights))})"


class Target(NamedTuple):
    """One thing that can be written."""

    ending: str
    """Of the file's name; empty for a folder."""
    sign: str
    """File by which a folder of this kind is known; empty for a file."""
    write: Callable[[Path, LoadedWeights], str]
    """Writes and returns what to tell."""


TARGETS: dict[Format, Target] = {
    "huggingface": Target("", CONFIG, _write_huggingface),
    "bert_pytorch": Target(".pt", "", _write_own),
    "nvidia": Target("", CHECKPOINT_FILE, _write_nvidia),
    "onnx": Target(".onnx", "", _write_onnx),
}
SUFFIXES: dict[str, Format] = {target.ending: name for name, target in TARGETS.items() if target.ending}

if __name__ == "__main__":
    sys.exit(main())
