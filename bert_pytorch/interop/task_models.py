"""Encoders with a task's head in Hugging Face's directories: `...ForSequenceClassification` and its kin, out and in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bert_pytorch.config.files import read_mapping
from bert_pytorch.errors import ConfigError
from bert_pytorch.interop.huggingface import CONFIG, read_folder, their_config, their_tensors, write_folder
from bert_pytorch.interop.matching import refuse_misfits
from bert_pytorch.interop.sources import EXPORTED
from bert_pytorch.models.families import FAMILIES
from bert_pytorch.models.tasks import Task, TaskModel
from bert_pytorch.records import Vocabulary

CLASSES: dict[Task, str] = {
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
}
"""Ends of the class names in `transformers`."""


class LoadedTaskModel(NamedTuple):
    """A task's model ready to use (in evaluation mode)."""

    model: TaskModel
    vocabulary: Vocabulary
    labels: tuple[str, ...]
    """Name of each class; empty for question answering."""
    exported: dict[str, Any] = {}  # noqa: RUF012 never modified
    """All of `config.json`: what a task wrote there besides (`problem_type`) is checked where it is used."""


def export_task_model(
    folder: Path,
    model: TaskModel,
    vocabulary: Vocabulary,
    labels: Sequence[str] = (),
    further: Mapping[str, Any] = {},
) -> None:
    """Write a directory that `transformers` opens with the task's head.

    Args:
        folder: made where needed; an earlier export in it is replaced.
        model: on any device.
        vocabulary: its tokens and casing.
        labels: name of each class; none for question answering.
        further: keys of `config.json` by which a task says more, plain values.
    """
    config = model.config.model_copy(update={"next_sentence": False})
    values = their_config(config, vocabulary)
    kind = FAMILIES[config.model_type].model.removesuffix("ForMaskedLM") + CLASSES[model.task]
    values |= {"architectures": [kind], **_label_keys(labels), **further}
    if config.model_type == "modernbert":
        values["classifier_pooling"] = "cls"
    tensors = their_tensors(model.state_dict(), config, vocabulary, model.task)
    write_folder(folder, tensors, values, config, vocabulary)


def load_task_model(folder: Path) -> LoadedTaskModel:
    """Read a directory that `export_task_model` or `transformers` wrote.

    Raises:
        InputError: if files are missing or damaged, or weights are missing or of a wrong shape.
        ConfigError: if `config.json` describes no task, or another architecture.
    """
    values = read_mapping(folder / CONFIG)
    task, labels = _task_of(values, folder), _labels_of(values, folder)
    config, vocabulary, found = read_folder(folder, task)
    config = config.model_copy(update={"next_sentence": False})
    labels = () if task == "question_answering" else labels
    with torch.device("meta"):  # nothing is drawn that the loaded weights would overwrite
        model = TaskModel(config, task, len(labels) or 2, len(vocabulary.tokens))
    wanted = model.state_dict()
    refuse_misfits(found, wanted, wanted, str(folder))
    model.load_state_dict({name: found[name] for name in wanted}, assign=True)
    return LoadedTaskModel(model.eval(), vocabulary, labels, values)


def task_folder(source: Path) -> Path | None:
    """Return the directory of a model with a task's head at `source` or in its `model/`; else None."""
    for folder in (source, source / EXPORTED):
        if (folder / CONFIG).is_file():
            architectures = read_mapping(folder / CONFIG).get("architectures")
            first = architectures[0] if isinstance(architectures, list) and architectures else None
            return folder if isinstance(first, str) and first.endswith(tuple(CLASSES.values())) else None
    return None


def _label_keys(labels: Sequence[str]) -> dict[str, Any]:
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _task_of(values: Mapping[str, Any], folder: Path) -> Task:
    architectures = values.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    for task, end in CLASSES.items():
        if isinstance(name, str) and name.endswith(end):
            if values.get("classifier_pooling", "cls") != "cls" and task == "sequence_classification":
                raise ConfigError(str(folder / CONFIG), ['"classifier_pooling": only "cls" is computed here.'])
            return task
    wanted = ", ".join(f"…{end}" for end in CLASSES.values())
    problem = (
        f'"architectures": found {architectures!r}, wanted one of {wanted}. A model without a task\'s head is '
        "fine-tuned first (run_squad.py, …)."
    )
    raise ConfigError(str(folder / CONFIG), [problem])


def _labels_of(values: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Return the names of the classes; `transformers` leaves them out where there are two without names."""
    names = values.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if isinstance(names, Mapping):
        labels = [names.get(str(index)) for index in range(len(names))]
        if labels and all(isinstance(label, str) for label in labels):
            return tuple(str(label) for label in labels)
    raise ConfigError(str(folder / CONFIG), [f'"id2label": found {names!r}, wanted a name for each of 0, 1, ….'])
