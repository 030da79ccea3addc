"""What a session begins with: a checkpoint of its own run, a task's model, a pretrained encoder, or nothing."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from bert_pytorch.checkpoints.format import Checkpoint
from bert_pytorch.checkpoints.reading import load_checkpoint
from bert_pytorch.downloads.named_models import local_source
from bert_pytorch.errors import ConfigError, InputError
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.interop.sources import EXPORTED, load_source
from bert_pytorch.interop.task_models import LoadedTaskModel, load_task_model, task_folder
from bert_pytorch.models.config import ModelConfig, load_model_config
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.records import Vocabulary
from bert_pytorch.tasks.task import Settled, Task
from bert_pytorch.training.resuming import SHAPE
from bert_pytorch.vocabulary import read_vocabulary

logger = logging.getLogger(__name__)


NOTHING = Settled((), {})


class Beginning(NamedTuple):
    """Weights in our terms, and what goes with them."""

    source: str
    """Where from, for messages."""
    config: ModelConfig
    """Shape of the encoder."""
    vocabulary: Vocabulary
    encoder: Mapping[str, Tensor]
    """Weights of the encoder; empty from scratch."""
    head: Mapping[str, Tensor]
    """All weights, the head's too, where the source is a model of the same kind of task; else empty."""
    settled: Settled
    """Its labels, with a head, and what else it says of its task."""
    checkpoint: Checkpoint | None = None
    """Of this run, which is continued."""


def read_beginning(config: FinetuningConfig, head: Head, own: Path | None) -> Beginning:
    """Read what a session begins with.

    Args:
        config: of the run.
        head: of its task.
        own: the checkpoint of this run that is continued.

    Raises:
        InputError: if it cannot be read, or has no head although nothing is trained.
        ConfigError: if options contradict it.
    """
    if own is not None:
        return _checked(config, _from_own_checkpoint(own))
    source = config.init_checkpoint
    if config.do_train:
        if source is None:
            return _from_scratch(config)
        return _checked(config, _from_source(config, local_source(source), head))
    folder = config.folder() if source is None else local_source(source)
    if (found := task_folder(folder)) is None:
        raise InputError(
            f"{folder}: found no model with a task's head, which --do_eval and --do_predict need. Give --do_train, or "
            f"name a fine-tuned model: --init_checkpoint with a run's output folder, or its {EXPORTED}/."
        )
    loaded = load_task_model(found)
    if loaded.model.task != head:
        raise InputError(f"{found}: it is a model for {loaded.model.task}, wanted one for {head}. Name another.")
    return _checked(config, _from_task_model(found, loaded))


def build_model(config: FinetuningConfig, beginning: Beginning, task: Task) -> TaskModel:
    """Build the model of a task, on the CPU, with the weights that it begins from.

    Raises:
        ConfigError: if labels of a run that is continued, or of a model that is only evaluated, are other ones.
    """
    labels = task.label_names
    dropout = {"attention_probs_dropout_prob": config.attention_dropout}
    if config.hidden_dropout is not None:
        dropout["hidden_dropout_prob"] = config.hidden_dropout
    shape = beginning.config.model_copy(update=dropout)
    size = len(beginning.vocabulary.tokens)
    model = TaskModel(shape, task.head, len(labels) or 2, size, config.attention, seed=config.seed)
    same = beginning.settled.labels == labels
    if not same and (beginning.checkpoint is not None or not config.do_train):
        found, wanted = _listed(beginning.settled.labels), _listed(labels)
        raise ConfigError(
            beginning.source, [f"its labels are {found}, those of the files {wanted}; keep to the former."]
        )
    if beginning.head and same:
        model.load_state_dict(dict(beginning.head))
        logger.info("weights: %s, the head's too", beginning.source)
    elif beginning.encoder:
        new = model.take_pretrained(beginning.encoder)
        logger.info("weights: %s; these begin at random: %s", beginning.source, ", ".join(new))
    else:
        logger.info("weights: all begin at random (no --init_checkpoint)")
    return model


def _listed(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:10]) or "none"
    return shown if len(labels) <= 10 else f"{shown}, … ({len(labels)} in all)"


def _from_own_checkpoint(path: Path) -> Beginning:
    checkpoint = Checkpoint.from_dict(load_checkpoint(path), str(path))
    shape = ModelConfig.model_validate(checkpoint.model_config)
    choices = checkpoint.choices
    settled = Settled(tuple(choices.get("labels", ())), choices.get("exported", {}))
    return Beginning(str(path), shape, checkpoint.tokenizer_vocabulary(), {}, checkpoint.model, settled, checkpoint)


def _from_source(config: FinetuningConfig, source: Path, head: Head) -> Beginning:
    if (found := task_folder(source)) is not None:
        loaded = load_task_model(found)
        if loaded.model.task == head:
            return _from_task_model(found, loaded)
    given = load_source(source, config.hints())
    for name in given.unexpected:
        logger.info("--init_checkpoint: %s has no place in this model and is left out", name)
    return Beginning(str(source), given.config, given.vocabulary, given.state_dict, {}, NOTHING)


def _from_task_model(folder: Path, loaded: LoadedTaskModel) -> Beginning:
    weights = loaded.model.state_dict()
    encoder = {name: tensor for name, tensor in weights.items() if name.startswith("bert.")}
    settled = Settled(loaded.labels, loaded.exported)
    return Beginning(str(folder), loaded.model.config, loaded.vocabulary, encoder, weights, settled)


def _from_scratch(config: FinetuningConfig) -> Beginning:
    assert config.model_config_file is not None
    assert config.vocab_file is not None
    shape = load_model_config(config.model_config_file)
    casing = config.do_lower_case if config.do_lower_case is not None else shape.lowercase is not False
    vocabulary = read_vocabulary(config.vocab_file, otherwise=casing)
    _refuse_casing(config, vocabulary, str(config.vocab_file))
    settled = {"vocab_size": len(vocabulary.tokens), "lowercase": vocabulary.lowercase, "tokenizer": vocabulary.kind}
    shape = shape.model_copy(update={**settled, "next_sentence": False})
    return Beginning(config.model_config_file, shape, vocabulary, {}, {}, NOTHING)


def _checked(config: FinetuningConfig, beginning: Beginning) -> Beginning:
    """Refuse options that contradict what the checkpoint says about itself."""
    _refuse_casing(config, beginning.vocabulary, beginning.source)
    problems = list(_contradictions(config, beginning))
    if problems:
        raise ConfigError(beginning.source, problems)
    return beginning


def _refuse_casing(config: FinetuningConfig, vocabulary: Vocabulary, where: str) -> None:
    if config.do_lower_case not in (None, vocabulary.lowercase):
        flag = "--do_lower_case" if config.do_lower_case else "--no-do_lower_case"
        casing = "lower-cased" if vocabulary.lowercase else "cased"
        raise ConfigError(
            where, [f"it is {casing}, which {flag} contradicts. Leave {flag} out: the checkpoint says it."]
        )


def _contradictions(config: FinetuningConfig, beginning: Beginning) -> Iterator[str]:
    if config.vocab_file is not None:
        given = read_vocabulary(config.vocab_file, otherwise=beginning.vocabulary.lowercase)
        if given != beginning.vocabulary:
            found, other = beginning.vocabulary.describe(), given.describe()
            yield f"its vocabulary has {found}, --vocab_file {other} (or others). Leave --vocab_file out."
    if config.model_config_file is not None:
        shape = load_model_config(config.model_config_file)
        for name in SHAPE:
            wanted, found = getattr(shape, name), getattr(beginning.config, name)
            if name != "next_sentence" and wanted != found:
                yield f"its {name} is {found!r}, {wanted!r} in --model_config_file. Leave --model_config_file out."
    positions = beginning.config.max_position_embeddings
    if config.max_seq_length > positions:
        yield f"it has {positions} positions, --max_seq_length {config.max_seq_length} wants more. Lower it."
