"""What all predictions share: a checkpoint opened once a process, blocks of texts through it, results in order."""

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from pydantic import Field

from bert_pytorch.errors import BertPytorchError, ConfigError, InputError, report
from bert_pytorch.inference.batches import Runner
from bert_pytorch.inference.texts import Text, TextsConfig
from bert_pytorch.interop.task_models import CLASSES, LoadedTaskModel, load_task_model, task_folder
from bert_pytorch.models.tasks import Task
from bert_pytorch.runtime.device import DeviceConfig, DeviceName, choose_device
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.tasks.features import Features, sequence_features
from bert_pytorch.tokenization.tokenizer import Tokenizer
from bert_pytorch.workers.ordered import map_in_order

logger = logging.getLogger(__name__)

BLOCK_CHARACTERS = 1 << 20
"""A block of texts is full from so many on."""

_ANY_LENGTH = 1 << 40


class PredictConfig(TextsConfig, PrecisionConfig):
    """Options of every prediction."""

    checkpoint: Path | None = None
    """A folder that fine-tuning wrote (or its model/), or a Hugging Face directory.  Required."""
    output_file: Path | None = None
    """Where results go, written whole or not at all; standard output by default."""
    max_tokens: int = Field(8192, ge=1)
    """Tokens of texts computed together."""
    block_texts: int = Field(512, ge=1)
    """Texts read before any is answered, of which batches are made; 1 answers a pipe line by line."""
    processes: int = Field(1, ge=1)
    """Processes that compute, on a CPU; each has the whole model."""
    device: DeviceName = "auto"
    """Device of the model: auto takes a CUDA GPU where there is one, else a Gaudi (hpu), else the CPU."""

    def combination_problems(self) -> Iterator[str]:
        """Say what is missing or cannot be."""
        yield from super().combination_problems()
        if self.checkpoint is None:
            yield "--checkpoint is missing: name the folder of a fine-tuned model."
        if self.processes > 1 and self.device in ("cuda", "hpu"):
            yield f"--processes {self.processes} share a CPU, found --device {self.device}: keep one of them."


Config = TypeVar("Config", bound=PredictConfig)


class Predictor(Protocol):
    """An opened checkpoint."""

    def __call__(self, texts: Sequence[Text]) -> list[Any]:
        """Return the result of each text; several at once give what each gives alone.

        Raises:
            InputError: naming a text that cannot be predicted.
        """


class _Work:
    """A predictor that travels to other processes: each opens the checkpoint when it has its first block."""

    def __init__(self, opener: Callable[[Any], Predictor], config: PredictConfig) -> None:
        self._opener, self._config = opener, config
        self._predictor: Predictor | None = None

    def __call__(self, block: Sequence[Text]) -> list[Any]:
        if self._predictor is None:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // self._config.processes))
            self._predictor = self._opener(self._config)
        return self._predictor(block)


def predictions(
    config: Config, opener: Callable[[Config], Predictor], texts: Iterable[Text]
) -> Iterator[tuple[Text, Any]]:
    """Yield each text with its result, in order; memory does not depend on how many there are.

    A text that a person types and that cannot be predicted is told, and the next is asked for.

    Args:
        config: of the command.
        opener: a function of a module, so that it can be sent to a process.
        texts: read as they are needed.

    Raises:
        InputError: at the first text that cannot be predicted, or if the checkpoint cannot be used.
        ConfigError: if the checkpoint is of another task.
    """
    predictor = opener(config)  # here, whatever will compute: what is wrong with the checkpoint is told at once
    if config.is_interactive:
        yield from _one_by_one(texts, predictor)
        return
    work = predictor if config.processes == 1 else _Work(opener, config)
    del predictor
    ahead, behind = itertools.tee(blocks_of(texts, config.block_texts))
    for block, results in zip(behind, map_in_order(work, ahead, config.processes), strict=True):
        yield from zip(block, results, strict=True)


def _one_by_one(texts: Iterable[Text], predictor: Predictor) -> Iterator[tuple[Text, Any]]:
    for text in texts:
        try:
            (result,) = predictor([text])
        except BertPytorchError as error:
            report(str(error))
        else:
            yield text, result


def blocks_of(texts: Iterable[Text], most: int) -> Iterator[list[Text]]:
    """Yield texts in blocks of at most so many, fewer where they are long, that bound memory."""
    block: list[Text] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text.text) + len(text.pair or "")
        if len(block) == most or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters = [], 0
    if block:
        yield block


def open_task_model(config: PredictConfig, task: Task) -> LoadedTaskModel:
    """Load the model of a folder that fine-tuning wrote.

    Raises:
        InputError: if files are missing or damaged.
        ConfigError: if it is a model of another task.
    """
    assert config.checkpoint is not None  # combination_problems saw to it
    folder = task_folder(config.checkpoint) or config.checkpoint  # where there is none, loading says what is missing
    loaded = load_task_model(folder)
    if loaded.model.task != task:
        raise ConfigError(
            str(folder), [f"it is a model …{CLASSES[loaded.model.task]}, wanted one …{CLASSES[task]} for this command."]
        )
    return loaded


def runner_of(config: PredictConfig) -> Runner:
    """Choose device and precision."""
    device = choose_device(DeviceConfig(device=config.device), local_rank=0).device
    if config.processes > 1 and device.type != "cpu":
        raise ConfigError("--processes", [f"found {config.processes} and {device.type}, wanted 1, or --device cpu."])
    return Runner(device, choose_precision(config, device), config.max_tokens)


def fitting_features(texts: Sequence[Text], tokenizer: Tokenizer, limit: int, *, truncate: bool) -> Features:
    """Make a sequence of each text, or of each pair where they are pairs.

    Raises:
        InputError: naming the first text of more than `limit` tokens, unless those are cut.
    """
    first = [text.text for text in texts]
    second = [text.pair or "" for text in texts]
    pairs = second if texts and texts[0].pair is not None else None
    features = sequence_features(tokenizer, first, pairs, _ANY_LENGTH, None)
    too_long = np.flatnonzero(features.lengths > limit)
    if not len(too_long):
        return features
    where, length = texts[int(too_long[0])].where, features.lengths[too_long[0]]
    if not truncate:
        raise InputError(
            f"{where}: it has {length} tokens, the model has positions for {limit}. Shorten it, or say --truncate to "
            "cut what is too long."
        )
    logger.warning("%s: cut from %d tokens to %d (%d such texts here)", where, length, limit, len(too_long))
    return sequence_features(tokenizer, first, pairs, limit, None)
