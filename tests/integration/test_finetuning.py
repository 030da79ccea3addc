"""Fine-tuning runs: resumed, accumulated, on two ranks, stopped early, from every kind of start."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert_pytorch.interop.nvidia import export_nvidia
from bert_pytorch.interop.sources import load_source
from bert_pytorch.interop.task_models import load_task_model
from bert_pytorch.models.tasks import TaskModel
from tests.support.finetuning import (
    VOCABULARY,
    classifier_command,
    classify_here,
    random_texts,
    sentiment,
    small_encoder,
    small_task_model,
    write_csv,
)
from tests.support.runs import assert_same_state, metrics, run_program, started, wait_until
from tests.support.vocabularies import small_byte_bpe


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder") / "model", hidden_dropout_prob=0.1)


@pytest.fixture
def flags(encoder: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "init_checkpoint": encoder,
        "do_train": True,
        "train_file": sentiment(tmp_path / "train.csv", 90),
        "train_batch_size": 16,
        "max_seq_length": 24,
        "learning_rate": 2e-3,
        "num_train_epochs": 2,
    }


def checkpoint(run: Path, step: int) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "finetune_ckpts" / f"ckpt_{step}.pt", weights_only=True)
    return state


def test_sessions_end_with_the_bits_of_a_run_never_stopped(flags: dict[str, Any], tmp_path: Path) -> None:
    flags |= {"do_eval": True, "val_file": sentiment(tmp_path / "val.csv", 40, seed=1), "layer_decay": 0.8}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert classify_here(**flags, output_dir=whole).code == 0
    for steps in (5, 3, None):
        outcome = classify_here(**flags, output_dir=parts, steps=steps)
        assert outcome.code == 0, outcome.err
        assert (parts / "model").exists() == (steps is None)
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, 12)[part], checkpoint(parts, 12)[part], part)
    best = [checkpoint(run, 12)["choices"]["best"] for run in (whole, parts)]
    assert best[0] == best[1]
    for event in ("train", "eval"):
        rows = [[{**row, **dict.fromkeys(row.keys() & TIMES)} for row in metrics(run, event)] for run in (whole, parts)]
        assert rows[0] == rows[1]
    assert [row["step"] for row in metrics(parts, "train")] == list(range(1, 13))
    weights = [load_task_model(run / "model").model.state_dict() for run in (whole, parts)]
    assert_same_state(*weights)


TIMES = {
    "sequences_per_second", "tokens_per_second", "step_seconds", "data_wait_seconds", "mfu", "peak_memory_gib",
}  # fmt: skip


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_with_the_bits_of_one_never_stopped(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    flags |= {"num_steps_per_checkpoint": 2, "num_train_epochs": 6, "val_file": flags["train_file"], "do_eval": True}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert classify_here(**flags, output_dir=whole).code == 0
    for step in (3, 17):
        command = [sys.executable, *classifier_command(**flags, output_dir=killed)]
        with started(command, tmp_path / "log") as process:
            wait_until(lambda step=step: len(metrics(killed, "train")) >= step, 120, f"update {step}")
            process.kill()
    last = classify_here(**flags, output_dir=killed)
    assert last.code == 0, last.err
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, 34)[part], checkpoint(killed, 34)[part], part)


def test_accumulation_and_two_ranks_equal_the_whole_batch(flags: dict[str, Any], tmp_path: Path) -> None:
    flags |= {
        "hidden_dropout": 0.0, "skip_checkpoint": True, "class_weights": "balanced", "do_predict": True,
        "test_file": sentiment(tmp_path / "test.csv", 33, seed=2),
    }  # fmt: skip
    runs = [tmp_path / name for name in ("whole", "accumulated", "ranks")]
    assert classify_here(**flags, output_dir=runs[0]).code == 0
    assert classify_here(**flags, output_dir=runs[1], gradient_accumulation_steps=3, max_tokens=60).code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    ranks = {"predict_batch_size": 4, "max_tokens": 100, "output_dir": runs[2]}
    outcome = run_program([*launcher, *classifier_command(**flags, **ranks)])
    assert outcome.code == 0, outcome.err
    losses = [[row["loss"] for row in metrics(run, "train")] for run in runs]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=2e-5)
    predicted = [[json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()] for run in runs]
    for other in predicted[1:]:
        assert [row["line"] for row in other] == [row["line"] for row in predicted[0]] == list(range(2, 35))
        chances = [[row["probabilities"]["good"] for row in rows] for rows in (predicted[0], other)]
        assert chances[1] == pytest.approx(chances[0], abs=2e-3)


def test_a_batch_smaller_than_its_ranks_and_micro_batches_trains_alike(flags: dict[str, Any], tmp_path: Path) -> None:
    flags |= {"hidden_dropout": 0.0, "skip_checkpoint": True, "train_batch_size": 3, "max_steps": 5}
    whole, ranks = tmp_path / "whole", tmp_path / "ranks"
    assert classify_here(**flags, output_dir=whole).code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = classifier_command(**flags, gradient_accumulation_steps=2, output_dir=ranks)
    outcome = run_program([*launcher, *command])
    assert outcome.code == 0, outcome.err
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, ranks)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-5)


def test_the_best_checkpoint_is_exported_and_waiting_ends_the_run(flags: dict[str, Any], tmp_path: Path) -> None:
    # Labels that say nothing: what is evaluated goes up and down, and patience ends it.
    texts = random_texts(60, seed=4)
    val = write_csv(tmp_path / "val.csv", [(text, "good" if len(text) % 2 else "bad") for text in texts])
    flags |= {
        "val_file": val, "do_eval": True, "early_stopping_patience": 2, "eval_interval": 1, "max_steps": 60,
        "best_metric": "mcc",
    }  # fmt: skip
    run = tmp_path / "run"
    outcome = classify_here(**flags, output_dir=run)
    assert outcome.code == 0, outcome.err
    found = [row["mcc"] for row in metrics(run, "eval")]
    assert len(found) < 60
    best = int(np.argmax(found)) + 1
    assert len(found) == best + 2
    weights = load_task_model(run / "model").model.state_dict()
    assert_same_state(dict(weights), dict(checkpoint(run, best)["model"]))
    assert json.loads((run / "eval_results.json").read_text())["mcc"] == pytest.approx(found[best - 1])
    assert metrics(run, "end")[-1]["reason"] == "finished"
    again = classify_here(**flags, output_dir=run)
    assert again.code == 0
    assert "training is finished" in again.out
    assert len(metrics(run, "eval")) == len(found)


def test_a_model_is_evaluated_and_learns_further_from_its_own_folder(flags: dict[str, Any], tmp_path: Path) -> None:
    run, val = tmp_path / "run", sentiment(tmp_path / "val.csv", 60, seed=1)
    flags |= {"val_file": val, "do_eval": True, "num_train_epochs": 8, "hidden_dropout": 0.0}
    flags["train_file"] = sentiment(tmp_path / "more.csv", 300)
    assert classify_here(**flags, output_dir=run).code == 0
    results = json.loads((run / "eval_results.json").read_text())
    assert results["accuracy"] > 0.8  # it has learnt
    for source in (run, run / "model"):
        other = tmp_path / f"evaluated_{source.name}"
        outcome = classify_here(init_checkpoint=source, do_eval=True, val_file=val, output_dir=other, max_seq_length=24)
        assert outcome.code == 0, outcome.err
        assert json.loads((other / "eval_results.json").read_text()) == results
    further = classify_here(**flags | {"init_checkpoint": run, "max_steps": 1}, output_dir=tmp_path / "further")
    assert further.code == 0
    assert "the head's too" in further.out


@pytest.mark.parametrize(
    "kind", ["checkpoint of the run", "other labels", "answers in a passage", "scratch", "nvidia", "byte-level BPE"]
)
def test_every_kind_of_start(kind: str, flags: dict[str, Any], tmp_path: Path) -> None:
    flags |= {"max_steps": 1, "skip_checkpoint": True}
    if kind == "checkpoint of the run":
        first = classify_here(**flags | {"skip_checkpoint": False}, output_dir=tmp_path / "first")
        assert first.code == 0, first.err
        flags["init_checkpoint"] = tmp_path / "first" / "finetune_ckpts" / "ckpt_1.pt"
    elif kind == "other labels":
        flags["init_checkpoint"] = small_task_model(tmp_path / "start", labels=("a", "b", "c"))
    elif kind == "answers in a passage":
        flags["init_checkpoint"] = small_task_model(tmp_path / "start", "question_answering", ())
    elif kind == "nvidia":
        given = load_source(flags["init_checkpoint"])
        export_nvidia(tmp_path / "start", given.state_dict, given.config, given.vocabulary)
        flags["init_checkpoint"] = tmp_path / "start" / "ckpt_0.pt"
    elif kind == "byte-level BPE":
        shape = {"model_type": "roberta", "type_vocab_size": 1, "next_sentence": False}
        flags["init_checkpoint"] = small_encoder(tmp_path / "start", small_byte_bpe(), **shape)
    else:
        shape, vocabulary = tmp_path / "shape.json", tmp_path / "vocab.txt"
        shape.write_text(json.dumps({"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}))
        vocabulary.write_text("\n".join(VOCABULARY.tokens) + "\n")
        flags |= {"init_checkpoint": None, "model_config_file": shape, "vocab_file": vocabulary}
    outcome = classify_here(**flags, output_dir=tmp_path / "run")
    assert outcome.code == 0, outcome.err
    begun = "all begin at random" if kind == "scratch" else "these begin at random: "
    assert begun in outcome.out
    assert isinstance(load_task_model(tmp_path / "run" / "model").model, TaskModel)


def test_a_time_limit_saves_what_was_done_and_a_second_start_goes_on(flags: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    flags |= {"num_train_epochs": 1000, "output_dir": run}
    outcome = classify_here(**flags, time_limit_minutes=0.04)
    assert outcome.code == 75, outcome.err
    assert metrics(run, "end")[-1]["reason"] == "time_limit"
    done = metrics(run, "train")[-1]["step"]
    assert checkpoint(run, done)["step"] == done
    assert not (run / "model").exists()
    assert classify_here(**flags, steps=2).code == 0
    assert [row["step"] for row in metrics(run, "train")] == list(range(1, done + 3))


def test_a_signal_while_predicting_ends_without_results(flags: dict[str, Any], tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    assert classify_here(**flags | {"max_steps": 1}, output_dir=trained).code == 0
    outcome = classify_here(
        init_checkpoint=trained, do_predict=True, test_file=flags["train_file"], max_seq_length=24,
        time_limit_minutes=1e-6, output_dir=tmp_path / "predicted",
    )  # fmt: skip
    assert outcome.code == 75
    assert not (tmp_path / "predicted" / "predictions.jsonl").exists()
