"""Small models and files to fine-tune with, and running the fine-tuning programs in this process."""

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bert_pytorch.finetuning import classification
from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.task_models import export_task_model
from bert_pytorch.models.build import build_model
from bert_pytorch.models.tasks import Task, TaskModel
from bert_pytorch.records import Vocabulary
from tests.support.packed_batches import small_config
from tests.support.runs import REPOSITORY, Outcome, run_here, words
from tests.support.vocabularies import small_vocabulary

VOCABULARY = small_vocabulary()
WORDS = ("the", "capital", "of", "france", "is", "paris", "rome", "a", "king", "ring", "good", "bad", ".")


def classify_here(**flags: Any) -> Outcome:
    """Run run_classifier.py in this process."""
    return run_here(classification.main, words(flags))


def classifier_command(**flags: Any) -> list[str]:
    """Return the words after `python` that run run_classifier.py as a program."""
    return [str(REPOSITORY / "run_classifier.py"), *words(flags)]


def small_encoder(folder: Path, vocabulary: Vocabulary = VOCABULARY, **changes: object) -> Path:
    """Export a random encoder with heads of pretraining, without dropout, as a Hugging Face folder."""
    model = build_model(small_config(**changes), len(vocabulary.tokens), seed=3)
    export_huggingface(folder, model.state_dict(), model.config, vocabulary)
    return folder


def small_task_model(
    folder: Path, task: Task = "sequence_classification", labels: Sequence[str] = ("bad", "good"), **further: Any
) -> Path:
    """Export a random model with a task's head, without dropout; biases and LayerNorms are spread."""
    model = TaskModel(small_config(), task, len(labels) or 2, len(VOCABULARY.tokens), seed=3)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    export_task_model(folder, model, VOCABULARY, labels, further)
    return folder


def random_texts(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Make texts of a few words; "good" or "bad" is among them and tells the class."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, longest))) for _ in range(count)]


def write_csv(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = ("text", "label")) -> Path:
    """Write a table with a line of names."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_json_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write one object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sentiment(path: Path, count: int, seed: int = 0) -> Path:
    """Write texts whose class is whether the first word is early in the alphabet: learnable, not trivial."""
    texts = random_texts(count, seed)
    return write_csv(path, [(text, "good" if text.split()[0] < "k" else "bad") for text in texts])
