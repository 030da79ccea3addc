"""run_glue.py: one task, many side by side with one table, MNLI's model as the beginning of others."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert_pytorch.finetuning import glue as program
from bert_pytorch.interop.task_models import load_task_model
from tests.support.finetuning import small_encoder
from tests.support.glue import write_glue
from tests.support.runs import REPOSITORY, Outcome, metrics, run_here, run_program, started, wait_until, words


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glue(tmp_path_factory.mktemp("glue") / "data")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_encoder(tmp_path_factory.mktemp("encoder") / "model")


def glue_here(**flags: Any) -> Outcome:
    return run_here(program.main, words(flags))


def test_one_task_trains_evaluates_and_writes_its_submission(glue: Path, encoder: Path, tmp_path: Path) -> None:
    outcome = glue_here(
        task_name="sts-b", data_dir=glue / "STS-B", init_checkpoint=encoder, do_train=True, do_eval=True,
        do_predict=True, max_seq_length=32, max_steps=3, output_dir=tmp_path,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert set(json.loads((tmp_path / "eval_results.json").read_text())) == {"pearson", "spearman"}
    assert len((tmp_path / "submission" / "STS-B.tsv").read_text().splitlines()) == 25
    assert load_task_model(tmp_path / "model").exported["problem_type"] == "regression"


def test_tasks_side_by_side_make_one_table_and_one_submission(glue: Path, encoder: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "data_dir": glue, "init_checkpoint": encoder, "do_train": True, "do_eval": True, "do_predict": True,
        "max_seq_length": 32, "max_steps": 2, "parallel_tasks": 2, "mnli_init": True, "output_dir": tmp_path / "runs",
        "seeds": 7,
    }  # fmt: skip
    command = [sys.executable, str(REPOSITORY / "run_glue.py"), *words(flags), "--task_name", "rte", "mnli"]
    outcome = run_program(command)
    assert outcome.code == 0, outcome.err
    table = json.loads((tmp_path / "runs" / "glue_results.json").read_text())
    for task, folder in (("mnli", "MNLI"), ("rte", "RTE")):
        results = json.loads((tmp_path / "runs" / folder / "seed_7" / "eval_results.json").read_text())
        assert table[task]["mean"] == pytest.approx(results)
        official = [value for name, value in results.items() if name.startswith("accuracy")]
        assert table[task]["score"] == pytest.approx(np.mean(official))
    assert "over 2 of 9 tasks" in outcome.out
    begun = json.loads((tmp_path / "runs" / "RTE" / "seed_7" / "logfile_run_config.json").read_text())
    assert begun["config"]["init_checkpoint"] == str(tmp_path / "runs" / "MNLI" / "seed_7")
    with zipfile.ZipFile(tmp_path / "runs" / "submission.zip") as archive:
        assert {Path(name).name for name in archive.namelist() if name.endswith(".tsv")} == {
            "AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "RTE.tsv",
        }  # fmt: skip


def test_a_run_that_fails_is_named_with_its_message(glue: Path, encoder: Path, tmp_path: Path) -> None:
    outcome = glue_here(
        task_name="wnli", seeds=3, data_dir=glue / "RTE", init_checkpoint=encoder, do_train=True, do_eval=True,
        max_seq_length=64, output_dir=tmp_path,
    )  # fmt: skip
    assert outcome.code == 1
    assert "1 of 1 runs failed:\nwnli, seed 3: error: " in outcome.err
    assert "it has 40 positions" in outcome.err


def test_what_is_wrong_with_the_tasks_is_told_at_once(tmp_path: Path) -> None:
    outcome = glue_here(task_name="sst3", seeds="-1", mnli_init=True, do_eval=True, output_dir=tmp_path)
    assert outcome.code == 2
    for part in ("found sst3, wanted cola, sst-2", "--seeds: found -1", "--mnli_init", "--data_dir is missing"):
        assert part in outcome.err


@pytest.mark.slow
def test_a_stop_reaches_every_run_which_saves(glue: Path, encoder: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "data_dir": glue, "init_checkpoint": encoder, "do_train": True, "do_eval": True, "max_seq_length": 32,
        "num_train_epochs": 10000, "parallel_tasks": 2, "task_name": "rte", "output_dir": tmp_path / "runs",
    }  # fmt: skip
    command = [sys.executable, str(REPOSITORY / "run_glue.py"), *words(flags), "--seeds", "1", "2"]
    runs = [tmp_path / "runs" / "RTE" / f"seed_{seed}" for seed in (1, 2)]
    with started(command, tmp_path / "log") as process:
        wait_until(lambda: all(len(metrics(run, "train")) > 3 for run in runs), 120, "both runs")
        process.terminate()
        assert process.wait(60) == 75
    for run in runs:
        assert metrics(run, "end")[-1]["reason"] == "signal"
        step = metrics(run, "train")[-1]["step"]
        assert (run / "finetune_ckpts" / f"ckpt_{step}.pt").exists()
