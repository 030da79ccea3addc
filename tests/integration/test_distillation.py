"""Pretraining with a teacher as a user runs it: what is learnt, what is left, what is continued, what is refused."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from bert_pytorch.interop.huggingface import export_huggingface
from bert_pytorch.interop.sources import load_source
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig
from tests.support.runs import (
    REPOSITORY,
    Outcome,
    assert_same_state,
    checkpoint,
    metrics,
    pretrain_here,
    run_program,
    words,
)
from tests.support.vocabularies import small_vocabulary

SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
BASICS: dict[str, Any] = {
    "learning_rate": 5e-3, "warmup_proportion": 0.1, "global_batch_size": 24, "local_batch_size": 12,
    "max_predictions_per_seq": 10, "num_steps_per_checkpoint": 1000, "optimizer": "adamw", "seed": 5,
}  # fmt: skip


def shape_file(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**SHAPE, **changes}))
    return path


@pytest.fixture(scope="module")
def teacher(shards64: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrain a BERT of four layers for long enough that it knows more than nothing."""
    folder = tmp_path_factory.mktemp("teacher")
    shape = shape_file(folder / "bert.json", num_hidden_layers=4)
    run = folder / "run"
    outcome = pretrain_here(
        **BASICS, input_dir=shards64, model_config_file=shape, output_dir=run, max_steps=60, num_workers=0
    )
    assert outcome.code == 0, outcome.err
    return run


@pytest.fixture
def flags(shards64: Path, teacher: Path, tmp_path: Path) -> dict[str, Any]:
    shape = shape_file(tmp_path / "distilbert.json", model_type="distilbert", num_hidden_layers=2, model_name="tiny")
    return {**BASICS, "input_dir": shards64, "model_config_file": shape, "teacher": teacher}


def test_a_student_learns_from_its_teacher_and_opens_in_transformers_without_it(
    flags: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    run = tmp_path / "student"
    outcome = pretrain_here(**flags, output_dir=run, max_steps=30)
    assert outcome.code == 0, outcome.err
    assert "5 soft targets at temperature 2 + 2 masked-LM + 1 cosine" in outcome.out
    rows = metrics(run, "train")
    for key in ("soft_target_loss", "mlm_loss", "cosine_loss"):
        assert rows[-1][key] < rows[0][key], key
    for row in rows:
        parts = 5 * row["soft_target_loss"] + 2 * row["mlm_loss"] + row["cosine_loss"]
        assert row["loss"] == pytest.approx(parts, rel=1e-12)
        assert row["nsp_loss"] is None
    first, last = metrics(run, "eval")
    assert last["mlm_loss"] < first["mlm_loss"] - 0.5

    theirs, information = transformers.AutoModelForMaskedLM.from_pretrained(run / "model", output_loading_info=True)
    assert type(theirs).__name__ == "DistilBertForMaskedLM"
    assert not any(information.values()), information
    saved = checkpoint(run, 30)
    student = build_model(load_source(run).config)
    assert saved["model"].keys() == student.state_dict().keys()
    assert len(saved["optimizer"]["state"]) == len(list(student.parameters()))
    assert saved["run_config"]["teacher"] == str(teacher)


def test_a_teacher_helps_a_student_that_begins_from_its_layers(
    flags: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    run = tmp_path / "student"
    outcome = pretrain_here(
        **{**flags, "teacher": teacher / "model"}, init_from_teacher_layers=True, output_dir=run, max_steps=1
    )
    assert outcome.code == 0, outcome.err
    assert "layers of the teacher that the model begins from: 1, 4" in outcome.out
    before = metrics(run, "eval")[0]["mlm_loss"]
    teachers = metrics(teacher, "eval")
    assert before < teachers[0]["mlm_loss"] - 1.0


def test_accumulation_and_two_gloo_ranks_equal_the_whole_batch(flags: dict[str, Any], tmp_path: Path) -> None:
    whole, accumulated, ranks = tmp_path / "whole", tmp_path / "accumulated", tmp_path / "ranks"
    flags |= {"max_steps": 5, "skip_checkpoint": True, "learning_rate": 2e-3, "optimizer": "lamb"}
    assert pretrain_here(**{**flags, "local_batch_size": 24}, output_dir=whole).code == 0
    assert pretrain_here(**{**flags, "local_batch_size": 7}, output_dir=accumulated).code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, str(REPOSITORY / "run_pretraining.py")]
    outcome = run_program([*command, *words({**flags, "local_batch_size": 5, "output_dir": ranks})])
    assert outcome.code == 0, outcome.err
    reference = metrics(whole, "train")
    for run in (accumulated, ranks):
        rows = metrics(run, "train")
        assert len(rows) == 5
        for key in ("loss", "mlm_loss", "soft_target_loss", "cosine_loss", "grad_norm"):
            assert [row[key] for row in rows] == pytest.approx([row[key] for row in reference], rel=2e-6), key


def test_a_run_in_sessions_equals_an_uninterrupted_one_bit_by_bit(flags: dict[str, Any], tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    flags |= {"max_steps": 6, "init_from_teacher_layers": True}
    assert pretrain_here(**flags, output_dir=whole).code == 0
    assert pretrain_here(**flags, output_dir=pieces, steps=2).code == 0
    assert pretrain_here(**flags, output_dir=pieces).code == 0
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, 6)[part], checkpoint(pieces, 6)[part], part)
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, pieces)]
    assert losses[0] == losses[1]


def test_without_the_cosine_loss_student_and_teacher_differ_in_width_and_rows_and_pairs_work(
    flags: dict[str, Any], tmp_path: Path
) -> None:
    narrow = shape_file(tmp_path / "bert.json", num_hidden_layers=1, hidden_size=16)
    flags |= {"model_config_file": narrow, "distillation_cosine_weight": 0, "packing": "rows", "max_steps": 2}
    outcome = pretrain_here(**flags, output_dir=tmp_path / "run")
    assert outcome.code == 0, outcome.err
    row = metrics(tmp_path / "run", "train")[-1]
    assert row["cosine_loss"] is None
    assert row["loss"] == pytest.approx(5 * row["soft_target_loss"] + 2 * row["mlm_loss"] + row["nsp_loss"], rel=1e-12)


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 2e-2), ("fp16", 5e-3)])  # 8 and 11 bits of mantissa
def test_lower_precisions_give_the_losses_of_float32(
    precision: str, tolerance: float, flags: dict[str, Any], tmp_path: Path
) -> None:
    flags |= {"global_batch_size": 8, "max_steps": 2, "skip_checkpoint": True}
    rows = []
    for name in ("fp32", precision):
        outcome = pretrain_here(**flags, precision=name, output_dir=tmp_path / name)
        assert outcome.code == 0, outcome.err
        rows.append(metrics(tmp_path / name, "train")[-1])
    for key in ("soft_target_loss", "mlm_loss", "cosine_loss"):
        assert rows[1][key] == pytest.approx(rows[0][key], rel=tolerance), key


def _with_another_vocabulary(flags: dict[str, Any], folder: Path) -> dict[str, Any]:
    vocabulary = small_vocabulary()
    config = ModelConfig.model_validate({**SHAPE, "num_hidden_layers": 2, "vocab_size": len(vocabulary.tokens)})
    export_huggingface(folder / "other", build_model(config).state_dict(), config, vocabulary)
    return {**flags, "teacher": folder / "other"}


def _with_a_headless_teacher(flags: dict[str, Any], folder: Path) -> dict[str, Any]:
    model = transformers.AutoModel.from_pretrained(flags["teacher"] / "model")
    model.save_pretrained(folder / "headless")
    tokenizer = transformers.AutoTokenizer.from_pretrained(flags["teacher"] / "model")
    tokenizer.save_pretrained(folder / "headless")
    return {**flags, "teacher": folder / "headless"}


MISTAKES: dict[str, tuple[Callable[[dict[str, Any], Path], dict[str, Any]], int, tuple[str, ...]]] = {
    "no such teacher": (lambda f, t: {**f, "teacher": t / "none"}, 1, ("none", "Check the spelling")),
    "another vocabulary": (_with_another_vocabulary, 2, ("--teacher", "its vocabulary", "--vocab_file")),
    "no masked-LM head": (_with_a_headless_teacher, 2, ("--teacher", "no masked-LM head")),
    "another width": (
        lambda f, t: {**f, "model_config_file": shape_file(t / "w.json", hidden_size=16, num_hidden_layers=1)},
        2,
        ("32 numbers", "16", "--distillation_cosine_weight 0"),
    ),
    "more layers than the teacher": (
        lambda f, t: {
            **f, "init_from_teacher_layers": True, "model_config_file": shape_file(t / "d.json", num_hidden_layers=5),
        },
        2,
        ("it has 4 layers, the model 5",),
    ),
    "layers of nobody": (
        lambda f, t: {**f, "teacher": None, "init_from_teacher_layers": True}, 2, ("--teacher is missing",),
    ),
    "nothing to learn": (
        lambda f, t: {**f, "distillation_soft_weight": 0, "distillation_cosine_weight": 0}, 2, ("both 0",),
    ),
    "the authors' flag": (lambda f, t: {**f, "alpha_ce": 5}, 2, ("--distillation_soft_weight",)),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_message(name: str, flags: dict[str, Any], tmp_path: Path) -> None:
    change, code, said = MISTAKES[name]
    outcome: Outcome = pretrain_here(**change(flags, tmp_path), output_dir=tmp_path / "run", max_steps=1)
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("error: ") == 1
    for text in said:
        assert text in outcome.err


def test_dry_run_counts_the_teacher(flags: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    outcome = pretrain_here(**flags, output_dir=tmp_path / "run", max_steps=1, dry_run=True)
    assert outcome.code == 0, outcome.err
    parameters = sum(tensor.numel() for tensor in load_source(teacher).state_dict.values())
    padding = 32 * (-30522 % 8)
    assert f"{parameters - padding:,} parameters" in outcome.out
