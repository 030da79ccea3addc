"""The comparison of fine-tuning: both sides take the same updates, and what is made of their rows."""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from benchmarks import finetuning_from_scratch
from benchmarks.finetuning import main, mean_curve, seconds_until, summed_up
from benchmarks.finetuning_sides import SIDES, Point, Run, read_run
from benchmarks.finetuning_tasks import TASKS, split_article
from bert_pytorch.interop.task_models import export_task_model
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.tasks.squad.files import read_squad
from tests.support.finetuning import VOCABULARY
from tests.support.glue import write_glue
from tests.support.packed_batches import small_config
from tests.support.squad_files import letters

ENTITIES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def small_model(folder: Path, task: Any, labels: tuple[str, ...]) -> Path:
    """A random model with a head, which both sides begin from, and without dropout."""
    model = TaskModel(small_config(max_position_embeddings=128), task, len(labels), len(VOCABULARY.tokens), seed=3)
    export_task_model(folder, model, VOCABULARY, labels)
    return folder


def write_entities(folder: Path, sentences: int) -> None:
    folder.mkdir(parents=True)
    sentence = "the O\nking I-PER\nof O\nfrance I-LOC\nparis B-LOC\n" + "\n"
    for name in ("eng.train", "eng.testa"):
        (folder / name).write_text("".join(f"a O\n{sentence}" for _ in range(sentences)))


@pytest.mark.parametrize(
    ("name", "head", "labels", "batch"),
    [("mrpc", "sequence_classification", ("0", "1"), 16), ("conll", "token_classification", ENTITIES, 32)],
)
def test_without_chance_both_sides_have_the_same_losses_and_scores(
    name: str, head: Any, labels: tuple[str, ...], batch: int, tmp_path: Path, capsys: Any
) -> None:
    model = small_model(tmp_path / "model", head, labels)
    write_glue(tmp_path / "data" / "glue", batch)  # all sequences are in each update, so that no order matters
    write_entities(tmp_path / "data" / "ner" / "conll2003", batch)
    words = ["--tasks", name, "--seeds", "7", "--max_steps", "5", "--points", "2", "--model", str(model)]
    words += ["--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")]
    with mock.patch.object(sys, "argv", ["finetuning", *words]):
        main()
    one, everything = (json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{"))
    assert everything["tasks"] == [one]
    for found in one["scores"].values():
        assert found["ours"] == pytest.approx(found["huggingface"], abs=0.01)
    ours, theirs = (read_run(tmp_path / "work" / name / f"{side}_7" / "metrics.jsonl") for side in SIDES)
    losses = [[row["loss"] for row in run.updates] for run in (ours, theirs)]
    assert len(losses[0]) == 5
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][-1] < losses[0][0]
    assert len(ours.points) == len(theirs.points) == 3  # after 2, 4 and 5 updates
    curves = one["curves"]
    assert one["train_seconds"]["ours"] == pytest.approx(curves["ours"][-1][0], abs=0.06)
    assert one["train_seconds"]["huggingface"] == pytest.approx(curves["huggingface"][-1][0], abs=0.06)


def test_a_rate_from_scratch_is_that_of_all_updates_but_the_first(tmp_path: Path, capsys: Any) -> None:
    write_glue(tmp_path / "data" / "glue")
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY.tokens) + "\n")
    words = ["--models", "bert_tiny_uncased", "--updates", "3", "--batch_size", "4", "--device", "cpu"]
    words += ["--data", str(tmp_path / "data"), "--vocab_file", str(tmp_path / "vocab.txt"), "--work", str(tmp_path)]
    with mock.patch.object(sys, "argv", ["finetuning_from_scratch", *words]):
        finetuning_from_scratch.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = read_run(tmp_path / "bert_tiny_uncased" / "metrics.jsonl").updates
    assert len(rows) == 4
    seconds = sum(row["step_seconds"] for row in rows[1:])
    assert found["samples_per_second"] == pytest.approx(3 * 4 / seconds, abs=0.01)
    assert found["tokens_per_second"] > 5 * found["samples_per_second"]  # a pair has seven tokens at least
    assert (found["updates"], found["model"]) == (3, "bert_tiny_uncased")


def test_a_score_is_reached_on_the_line_between_evaluations_and_at_the_first_one_at_the_earliest() -> None:
    curve = [(10.0, 50.0), (20.0, 60.0), (30.0, 58.0), (40.0, 70.0)]
    assert seconds_until(55.0, curve) == 15.0
    assert seconds_until(60.0, curve) == 20.0
    assert seconds_until(65.0, curve) == pytest.approx(30 + 10 * 7 / 12)
    assert seconds_until(40.0, curve) == 10.0
    with pytest.raises(ValueError, match="not reached"):
        seconds_until(71.0, curve)


def run(*points: tuple[float, float]) -> Run:
    seconds = points[-1][0]
    rows = [{"step_seconds": seconds}]
    return Run(rows, [Point(at, {"f1": score, "accuracy": score / 2}) for at, score in points], 2 * seconds)


def test_scores_are_means_with_deviations_and_time_is_told_to_the_lower_final_score() -> None:
    runs = {"ours": [run((1, 0.4), (2, 0.6)), run((1, 0.6), (2, 0.8))], "huggingface": [run((4, 0.1), (8, 0.6))] * 2}
    task = TASKS["conll"]
    assert mean_curve(task, runs["ours"]) == [(1, pytest.approx(50)), (2, pytest.approx(70))]
    found = summed_up(task, runs)
    assert found["scores"] == {"f1": {"ours": [70.0, 14.14], "huggingface": [60.0, 0.0]}}
    assert found["same_score"] == {"score": 60.0, "ours": 1.5, "huggingface": 8.0}
    assert found["same_score_ratio"] == pytest.approx(8 / 1.5, abs=0.01)
    assert found["ratio"] == found["cpu_ratio"] == 4.0
    assert found["seeds"] == 2


def test_evaluations_stand_at_the_time_of_the_updates_before_them(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"event": "start", "step": 0},
        {"event": "train", "step": 1, "loss": 2.0, "step_seconds": 3.0},
        {"event": "train", "step": 2, "loss": 1.0, "step_seconds": 1.0},
        {"event": "eval", "step": 2, "f1": 0.5},
        {"event": "train", "step": 3, "loss": 1.0, "step_seconds": 2.0},
        {"event": "eval", "step": 3, "f1": 0.75},
    ]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_run(tmp_path / "rows")
    assert found.points == [Point(4.0, {"f1": 0.5}), Point(6.0, {"f1": 0.75})]
    assert found.seconds == 6.0


def test_an_article_is_split_between_passages(tmp_path: Path) -> None:
    whole = read_squad([letters(tmp_path / "letters.json", 7)])
    learnt, asked = (read_squad([path]) for path in split_article(tmp_path / "letters.json", 3, tmp_path))
    assert (learnt.passages, asked.passages) == (whole.passages[:3], whole.passages[3:])
    ids = [question.id for question in (*learnt.questions, *asked.questions)]
    assert ids == [question.id for question in whole.questions]
