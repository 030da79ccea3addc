"""Classes of texts against transformers' pipeline of scores, in each of the three problems, and in batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bert_pytorch.interop.task_models import export_task_model
from bert_pytorch.models.tasks import TaskModel
from tests.support.packed_batches import small_config
from tests.support.vocabularies import small_vocabulary

VOCABULARY = small_vocabulary()
LABELS = ("no", "maybe", "yes")
TEXTS = ["the capital of france is paris .", "rome", "a", "the singing kings"]
PAIRS = [("the capital", "of france"), ("paris", "a"), ("", "a"), ("rome is", "the capital of rome")]


def write_model(folder: Path, labels: tuple[str, ...] = LABELS, **exported: object) -> Path:
    model = TaskModel(small_config(), "sequence_classification", len(labels), len(VOCABULARY.tokens), seed=3)
    export_task_model(folder, model, VOCABULARY, labels, exported)
    return folder


@torch.no_grad()
def their_scores(folder: Path, texts: list) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    pairs = [text if isinstance(text, tuple) else (text,) for text in texts]
    return np.stack([model(**tokenizer(*pair, return_tensors="pt")).logits[0].double().numpy() for pair in pairs])


def records(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("exported", [{}, {"problem_type": "single_label_classification"}])
def test_the_class_is_the_likeliest_of_transformers_scores(exported: dict, tmp_path: Path, run) -> None:
    folder = write_model(tmp_path, **exported)
    scores = their_scores(folder, TEXTS)
    likely = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    outcome = run("classify", "--checkpoint", folder, *TEXTS)
    assert outcome.code == 0
    for record, text, wanted in zip(records(outcome.out), TEXTS, likely, strict=True):
        assert record["text"] == text
        assert record["label"] == LABELS[wanted.argmax()]
        assert record["probabilities"] == pytest.approx(dict(zip(LABELS, wanted, strict=True)), abs=2e-5)


def test_pairs_are_scored_as_in_transformers(tmp_path: Path, run) -> None:
    folder = write_model(tmp_path)
    scores = their_scores(folder, PAIRS)
    likely = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    outcome = run("classify", "--checkpoint", folder, "--pairs", *("\t".join(pair) for pair in PAIRS))
    for record, pair, wanted in zip(records(outcome.out), PAIRS, likely, strict=True):
        assert (record["text"], record["text_pair"]) == pair
        assert list(record["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=2e-5)


def test_several_classes_may_hold_where_the_model_says_so(tmp_path: Path, run) -> None:
    folder = write_model(tmp_path, problem_type="multi_label_classification")
    likely = 1 / (1 + np.exp(-their_scores(folder, TEXTS)))
    found = records(run("classify", "--checkpoint", folder, *TEXTS).out)
    assert any(len(record["labels"]) != 1 for record in found)
    for record, wanted in zip(found, likely, strict=True):
        assert record["labels"] == [label for label, value in zip(LABELS, wanted, strict=True) if value > 0.5]
        assert list(record["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=2e-5)
    all_hold = records(run("classify", "--checkpoint", folder, "--threshold", "0.0001", *TEXTS).out)
    assert all(record["labels"] == list(LABELS) for record in all_hold)


def test_a_single_label_is_a_number(tmp_path: Path, run) -> None:
    folder = write_model(tmp_path, ("score",))
    found = records(run("classify", "--checkpoint", folder, *TEXTS).out)
    assert [record["value"] for record in found] == pytest.approx(their_scores(folder, TEXTS)[:, 0].tolist(), abs=2e-5)


def test_batches_give_what_each_text_gives_alone(tmp_path: Path, run) -> None:
    folder, path = write_model(tmp_path / "model"), tmp_path / "texts.jsonl"
    rng = np.random.default_rng(1)
    words = [" ".join(rng.choice(["the", "of", "rome", "x"], rng.integers(0, 9))) for _ in range(1300)]
    path.write_text("\n".join(json.dumps({"text": a, "text_pair": b}) for a, b in zip(words, words[::-1], strict=True)))
    options = ["classify", "--checkpoint", folder, "--pairs", "--input_file", path]
    alone = records(run(*options, "--max_tokens", "1").out)
    together = records(run(*options).out)
    assert [record["text"] for record in together] == words
    for ours, wanted in zip(together, alone, strict=True):
        assert ours["probabilities"] == pytest.approx(wanted["probabilities"], abs=2e-6)


def test_a_runs_folder_is_opened_by_its_model(tmp_path: Path, run) -> None:
    write_model(tmp_path / "model")
    assert run("classify", "--checkpoint", tmp_path, "a").code == 0


def test_a_model_of_another_kind_is_refused(tmp_path: Path, run) -> None:
    outcome = run("tag", "--checkpoint", write_model(tmp_path / "a"), "a")
    assert outcome.code == 2
    assert "…ForSequenceClassification, wanted one …ForTokenClassification" in outcome.err
