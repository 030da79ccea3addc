"""run_classifier.py on files of a person's own: every format and problem, and one message for each thing wrong."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

from bert_pytorch.interop.task_models import load_task_model
from tests.support.finetuning import (
    classify_here,
    random_texts,
    sentiment,
    small_encoder,
    write_csv,
    write_json_lines,
)
from tests.support.vocabularies import small_vocabulary


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def classifier(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    outcome = classify_here(
        init_checkpoint=encoder, do_train=True, train_file=sentiment(folder / "train.csv", 40), max_steps=2,
        max_seq_length=24, output_dir=folder / "run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    return folder / "run"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_metrics_pictures_and_predictions_of_classes_in_tsv(encoder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts, classes = random_texts(50), rng.integers(0, 3, 50)
    data = tmp_path / "data.tsv"
    rows = [f'{number}\t"{text}\t{name}' for text, name, number in zip(texts, classes, range(50), strict=True)]
    data.write_text("\n".join(["id\tquestion\tclass", *rows]) + "\n")
    outcome = classify_here(
        init_checkpoint=encoder, do_train=True, do_eval=True, do_predict=True, train_file=data, val_file=data,
        test_file=data, text_column="question", label_column="class", max_seq_length=24, max_steps=8,
        learning_rate=1e-3, output_dir=tmp_path / "run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    predicted = [int(line["label"]) for line in lines_of(tmp_path / "run" / "predictions.jsonl")]
    assert results["test_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(classes, predicted))
    assert results["f1"] == pytest.approx(sklearn.metrics.f1_score(classes, predicted, average="macro"))
    assert results["test_mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(classes, predicted))
    for picture in ("confusion_matrix.png", "test_confusion_matrix.png", "curves.png"):
        assert (tmp_path / "run" / picture).read_bytes().startswith(b"\x89PNG")
    assert load_task_model(tmp_path / "run" / "model").labels == ("0", "1", "2")
    (tmp_path / "run" / "mine.txt").write_text("kept")
    outcome = classify_here(
        init_checkpoint=encoder, do_train=True, train_file=data, text_column="question", label_column="class",
        max_seq_length=24, max_steps=1, output_dir=tmp_path / "run", overwrite=True,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "mine.txt" in left
    assert not left & {"predictions.jsonl", "confusion_matrix.png", "test_confusion_matrix.png", "eval_results.json"}


def test_several_classes_at_once_and_numbers(encoder: Path, tmp_path: Path) -> None:
    texts = random_texts(40)
    several = [
        {"text": text, "label": [word for word in ("a", "paris", "the") if word in text.split()]} for text in texts
    ]
    flags: dict[str, Any] = {
        "init_checkpoint": encoder, "do_train": True, "do_predict": True, "max_seq_length": 24, "max_steps": 4,
    }  # fmt: skip
    data = write_json_lines(tmp_path / "several.jsonl", several)
    flags["test_file"] = data
    outcome = classify_here(**flags, train_file=data, output_dir=tmp_path / "several")
    assert outcome.code == 0, outcome.err
    model = load_task_model(tmp_path / "several" / "model")
    assert model.labels == ("a", "paris", "the")
    assert model.exported["problem_type"] == "multi_label_classification"
    for line in lines_of(tmp_path / "several" / "predictions.jsonl"):
        assert line["labels"] == [name for name, chance in line["probabilities"].items() if chance >= 0.5]

    numbers = write_csv(tmp_path / "numbers.csv", [(text, len(text) / 10) for text in texts], ("text", "size"))
    refused = classify_here(**flags, train_file=data, class_weights="balanced", output_dir=tmp_path / "refused")
    assert refused.code == 2
    assert "--class_weights: found balanced, which is for single_label; this is multi_label" in refused.err

    flags |= {"train_file": numbers, "test_file": numbers, "label_column": "size", "problem": "regression"}
    outcome = classify_here(**flags, output_dir=tmp_path / "numbers")
    assert outcome.code == 0, outcome.err
    found = [line["value"] for line in lines_of(tmp_path / "numbers" / "predictions.jsonl")]
    wanted = [len(text) / 10 for text in texts]
    results = json.loads((tmp_path / "numbers" / "eval_results.json").read_text())
    assert results["test_mse"] == pytest.approx(np.square(np.subtract(found, wanted)).mean(), rel=1e-5)
    assert results["test_pearson"] == pytest.approx(np.corrcoef(found, wanted)[0, 1], rel=1e-5)
    assert load_task_model(tmp_path / "numbers" / "model").labels == ("size",)


def test_a_test_file_without_labels_is_predicted_by_the_exported_model_alone(classifier: Path, tmp_path: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [[text] for text in random_texts(9)], ["text"])
    outcome = classify_here(
        init_checkpoint=classifier, do_predict=True, test_file=test, max_seq_length=24, output_dir=tmp_path / "run"
    )
    assert outcome.code == 0, outcome.err
    assert {line["label"] for line in lines_of(tmp_path / "run" / "predictions.jsonl")} <= {"good", "bad"}
    assert not (tmp_path / "run" / "eval_results.json").exists()


WRONG: dict[str, tuple[str, str, list[str]]] = {
    "no such column": ("t.csv", "txt,label\na,good\n", ["line 2", "no 'text'", "'txt'", "--text_column"]),
    "no label": ("t.csv", "text,class\na,good\n", ["line 2", "no 'label'", "--label_column"]),
    "ragged": ("t.csv", "text,label\na,good\nb,bad,extra\n", ["line 3", "3 fields", "wanted 2"]),
    "empty": ("t.csv", "", ["no examples"]),
    "a header alone": ("t.csv", "text,label\n", ["no examples"]),
    "an open quote": ("t.csv", 'text,label\n"a,good\n', ["line 2", "cannot be read as a table"]),
    "one class": ("t.csv", "text,label\na,good\nb,good\n", ["only 'good'", "at least 2 classes"]),
    "an empty label": ("t.csv", "text,label\na,good\nb,\n", ["line 3", "''", "name of a class"]),
    "not JSON": ("t.jsonl", '{"text": "a", "label": "x"}\n{"text"\n', ["line 2", "not JSON"]),
    "no object": ("t.jsonl", "[1]\n", ["line 1", "[1]", "object"]),
    "a number as text": ("t.jsonl", '{"text": 3, "label": "x"}\n', ["line 1", "'text' is 3", "a text"]),
    "an ending": ("t.xlsx", "text", [".xlsx", ".csv, .tsv, .jsonl"]),
    "a missing file": ("", "", ["no such file"]),
    "labels everywhere": (
        "t.csv", "text,label\n" + "".join(f"a,{n}.5\n" for n in range(80)), ["80 different labels", "regression"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_one_message_for_each_thing_wrong_in_a_file(case: str, encoder: Path, tmp_path: Path) -> None:
    name, content, wanted = WRONG[case]
    path = tmp_path / (name or "missing.csv")
    if name:
        path.write_text(content)
    outcome = classify_here(
        init_checkpoint=encoder, do_train=True, train_file=path, max_seq_length=24, output_dir=tmp_path / "run"
    )
    assert outcome.code == 1, outcome.out
    assert outcome.err.count("error: ") == 1
    for part in (str(path), *wanted):
        assert part in outcome.err


def test_an_unknown_label_at_test_time_is_named_with_its_line(classifier: Path, tmp_path: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [("the", "good"), ("a", "so-so")])
    outcome = classify_here(init_checkpoint=classifier, do_predict=True, test_file=test, output_dir=tmp_path / "run",
                            max_seq_length=24)  # fmt: skip
    assert outcome.code == 1
    assert "line 3: the label 'so-so' is unknown; the model knows 'bad', 'good'" in outcome.err


def test_what_is_missing_on_the_command_line_is_told_at_once(tmp_path: Path) -> None:
    outcome = classify_here(do_train=True, do_eval=True, model_config_file="bert_tiny_uncased", max_tokens=16)
    assert outcome.code == 2
    for part in ("--output_dir", "--vocab_file", "--train_file", "--val_file", "--max_tokens 16"):
        assert part in outcome.err
    assert "nothing to do" in classify_here(output_dir=tmp_path).err
    assert "--init_checkpoint" in classify_here(model_name_or_path="bert-base-uncased").err


def test_what_contradicts_the_checkpoint_is_refused(encoder: Path, classifier: Path, tmp_path: Path) -> None:
    train = sentiment(tmp_path / "train.csv", 20)
    flags: dict[str, Any] = {
        "init_checkpoint": encoder, "do_train": True, "train_file": train, "output_dir": tmp_path / "run",
        "max_seq_length": 24,
    }  # fmt: skip
    cased = tmp_path / "vocab.txt"
    cased.write_text("\n".join(small_vocabulary(lowercase=False).tokens) + "\n")
    shape = tmp_path / "shape.json"
    shape.write_text(json.dumps({"hidden_size": 32, "num_attention_heads": 2}))
    for changes, message in (
        ({"do_lower_case": False}, "it is lower-cased, which --no-do_lower_case contradicts"),
        ({"vocab_file": cased}, "Leave --vocab_file out"),
        ({"model_config_file": shape}, "its hidden_size is 64, 32 in --model_config_file"),
        ({"max_seq_length": 64}, "it has 40 positions"),
        ({"problem": "regression", "init_checkpoint": classifier, "do_train": False, "do_predict": True,
          "test_file": train}, "trained for single_label"),
        ({"do_train": False, "do_eval": True, "val_file": train}, "no model with a task's head"),
    ):  # fmt: skip
        outcome = classify_here(**flags | changes)
        assert outcome.code in (1, 2)
        assert message in outcome.err
