"""The task as the engine sees it: labels at first tokens, a loss over words, scores by entity, predictions written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import f1_score

from bert_pytorch.records import IGNORED_LABEL
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.ner.conll import read_conll
from bert_pytorch.tasks.ner.task import NerTask
from bert_pytorch.tasks.task import Settled
from bert_pytorch.tokenization.tokenizer import Tokenizer
from tests.support.data import shared_data
from tests.support.packed_batches import random_batch
from tests.support.vocabularies import small_vocabulary

TRAIN = "the O\nkings I-PER\n\u200b O\n\nparis I-LOC\nrome B-LOC\n\n\u200b O\n"


def task_of(folder: Path, text: str = TRAIN, length: int = 40, **options) -> NerTask:
    path = folder / "train.conll"
    path.write_text(text)
    return NerTask({"train": path, "test": path}, Tokenizer(small_vocabulary()), length, **options)


def perfect(features: Features, labels: int) -> list[np.ndarray]:
    """Make scores that are highest at the labels."""
    assert features.labels is not None
    scores = np.eye(labels, dtype=np.float32)[np.where(features.labels == IGNORED_LABEL, labels - 1, features.labels)]
    return np.split(scores, features.cu_seqlens[1:-1])


def test_labels_stand_at_first_tokens_of_words(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    features = task.features("train")
    assert task.label_names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    none = IGNORED_LABEL
    assert features.labels is not None
    assert features.labels.tolist() == [none, 0, 3, none, none, none, none, 1, 1, none]
    assert features.examples.tolist() == [0, 1]  # of the third sentence nothing is left
    assert task.count(features.labels) == 4


def test_the_loss_is_the_cross_entropy_of_words_summed(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    labels = torch.from_numpy(task.features("train").labels)
    scores = torch.randn(10, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = -sum(scores.log_softmax(1)[place, label] for place, label in enumerate(labels.tolist()) if label >= 0)
    assert task.loss_sum(scores, labels, random_batch([10])).item() == pytest.approx(wanted.item(), rel=1e-12)


def test_words_without_a_token_are_o_and_all_others_keep_their_tags(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    features = task.features("test")
    scores = perfect(features, 5)
    metrics = task.metrics("test", features, scores)
    assert metrics == dict.fromkeys(["test_precision", "test_recall", "test_f1", "test_f1_LOC", "test_f1_PER"], 1.0)
    task.write_predictions("test", features, scores, tmp_path)
    task.write_report("test", features, scores, tmp_path)
    written = (tmp_path / "test_predictions.conll").read_text()
    assert written == TRAIN.replace("O\n", "O O\n").replace("PER\n", "PER I-PER\n").replace(
        "I-LOC\nrome B-LOC", "I-LOC I-LOC\nrome B-LOC B-LOC"
    )
    assert (tmp_path / "test_entities.txt").read_text().splitlines()[-1].split()[:2] == ["all", "100.00%"]


@pytest.mark.parametrize("length", [8, 16, 512])
def test_a_real_file_in_windows_of_any_length_scores_as_in_seqeval(length: int, tmp_path: Path) -> None:
    path = tmp_path / "file.conll"
    lines = shared_data("ner", "conll2003", "eng.testa").read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join(lines[:4000]))
    task = NerTask({"train": path, "val": path}, Tokenizer(small_vocabulary()), length)
    features, names = task.features("val"), task.label_names
    scores = perfect(features, len(names))
    assert task.metrics("val", features, scores)["f1"] == 1.0
    rng = np.random.default_rng(0)
    noisy = [row + rng.normal(0, 0.5, row.shape).astype(np.float32) for row in scores]
    best = np.concatenate(noisy).argmax(axis=1)
    file = read_conll(path)
    words = features.extra["words"]
    tags = np.array(["O"] * len(file.words), dtype=object)
    tags[words[words >= 0]] = [names[label] for label in best[words >= 0]]
    wanted, found = (list(map(list, file.sentences(list(values)))) for values in (file.tags, tags))
    assert task.metrics("val", features, noisy)["f1"] == pytest.approx(f1_score(wanted, found), abs=1e-12)


def test_what_shapes_the_features_is_in_their_key(tmp_path: Path) -> None:
    same = task_of(tmp_path).cache_key("train")
    assert task_of(tmp_path).cache_key("train") == same
    others = [
        task_of(tmp_path, length=39),
        task_of(tmp_path, wanted=["PER", "LOC", "ORG"]),
        task_of(tmp_path, TRAIN.replace("the", "a")),
        task_of(tmp_path, TRAIN.replace("B-LOC", "I-LOC")),
    ]
    for other in others:
        assert other.cache_key("train") != same


def test_a_models_own_labels_are_kept_in_their_order(tmp_path: Path) -> None:
    labels = ("I-PER", "B-PER", "I-LOC", "B-LOC", "O")
    task = task_of(tmp_path, settled=Settled(labels, {}))
    assert task.label_names == labels
    assert task.features("train").labels.tolist()[1:3] == [4, 1]
