"""Pretraining as a user runs it: phases, sessions, stops, and that continuing equals never having stopped."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.loader import BatchMaker, TrainingLoader
from bert_pytorch.data.masking import policy_for
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.models.config import load_model_config
from bert_pytorch.models.flops import BatchWork, training_flops
from tests.support.runs import (
    assert_same_state,
    checkpoint,
    metrics,
    pretrain_here,
    pretraining_command,
    started,
    wait_until,
)

BASICS: dict[str, Any] = {
    "learning_rate": 5e-3,
    "warmup_proportion": 0.25,
    "global_batch_size": 12,
    "local_batch_size": 5,
    "max_predictions_per_seq": 10,
    "num_steps_per_checkpoint": 3,
    "seed": 11,
}


@pytest.fixture
def basics(shards64: Path, tiny_model: Path) -> dict[str, Any]:
    return {**BASICS, "input_dir": shards64, "model_config_file": tiny_model}


def test_two_phases_leave_the_contracted_files_and_each_its_own_schedule(
    basics: dict[str, Any], shards128: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = pretrain_here(**basics, output_dir=run, max_steps=8, log_prefix="phase1", eval_interval=4)
    assert first.code == 0, first.err
    phase2 = {**basics, "input_dir": shards128, "learning_rate": 2e-3, "global_batch_size": 6}
    second = pretrain_here(**phase2, output_dir=run, max_steps=4, previous_phase_end_step=8, log_prefix="phase2")
    assert second.code == 0, second.err

    names = {path.name for path in run.iterdir()}
    wanted = {"pretrain_ckpts", "tensorboard", "model", "metrics.jsonl"}
    wanted |= {f"phase{n}{end}" for n in (1, 2) for end in (".txt", "_metrics.csv", "_run_config.json")}
    assert wanted <= names
    rows = metrics(run, "train")
    assert [row["step"] for row in rows] == list(range(1, 13))
    # Phase 2's rates are of phase 2's peak: 2e-3 * k/W while k <= W = 1, then 2e-3 * sqrt(1 - (k-1)/4).
    rates = [row["learning_rate"] for row in rows[8:]]
    assert rates == pytest.approx([2e-3 * factor**0.5 for factor in (1, 3 / 4, 2 / 4, 1 / 4)], rel=1e-12)
    assert [row["step"] for row in metrics(run, "eval")] == [0, 4, 8, 8, 12]
    assert [(row["reason"], row["step"]) for row in metrics(run, "end")] == [("finished", 8), ("finished", 12)]
    absent = {"mfu", "soft_target_loss", "cosine_loss", "kfac_failures"}  # no known peak, no teacher, no K-FAC
    assert {key for row in rows for key, value in row.items() if value is None} == absent
    kernels = ("residual_norm", "bias_gelu", "geglu", "lamb")
    choices = checkpoint(run, 12)["choices"]
    assert choices["attention_used"] == "sdpa"
    assert choices["kernels_used"] == dict.fromkeys(kernels, "torch")
    assert "kernels: the CPU's own forward and backward passes" in (run / "phase2.txt").read_text()

    end_of_first, end_of_second = checkpoint(run, 8), checkpoint(run, 12)
    assert (end_of_first["phase"], end_of_second["phase"]) == (1, 2)
    assert end_of_first["data_position"]["samples"] == 8 * 12
    assert end_of_second["data_position"]["samples"] == 4 * 6
    assert end_of_second["optimizer"]["param_groups"][0]["step"] == 12  # moments and their count are carried on
    assert end_of_second["vocabulary"][101:104] == ["[CLS]", "[SEP]", "[MASK]"]


def test_utilisation_is_model_flops_of_the_updates_own_batch_over_one_measured_peak(
    basics: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert pretrain_here(**basics, output_dir=run, max_steps=4, measure_peak=True, skip_checkpoint=True).code == 0
    rows = metrics(run, "train")
    config = DataConfig.model_validate(metrics(run, "start")[0]["data"])
    corpora = open_corpora(config.input_dir, "train", config, None, lowercase=True)
    batches = BatchMaker(corpora, corpora.vocabulary, policy_for(config, corpora.vocabulary), next_sentence=True)
    updates = TrainingLoader(batches, config).stream(0)
    model_config = load_model_config(tiny_model).model_copy(update={"vocab_size": 30522})
    flops = [
        sum(training_flops(model_config, BatchWork.of(batch)) for batch in update.micro_batches)
        for _, update in zip(rows, updates, strict=False)
    ]
    assert len(set(flops)) == 4  # lengths differ
    peaks = [number / (row["mfu"] * row["step_seconds"]) for number, row in zip(flops, rows, strict=True)]
    assert peaks == pytest.approx([peaks[0]] * 4, rel=1e-9)


def test_the_exported_model_opens_in_transformers_and_has_the_held_out_loss_that_was_logged(
    basics: dict[str, Any], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    run = tmp_path / "run"
    assert pretrain_here(**basics, output_dir=run, max_steps=4).code == 0
    _, report = transformers.BertForPreTraining.from_pretrained(run / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    assert tokenizer("Fellow citizens")["input_ids"] == [101, 3507, 4480, 102]


def test_a_run_in_sessions_equals_an_uninterrupted_one_bit_by_bit(basics: dict[str, Any], tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert pretrain_here(**basics, output_dir=whole, max_steps=10, num_workers=0).code == 0
    for limit in (1, 4, 2):
        outcome = pretrain_here(**basics, output_dir=pieces, max_steps=10, steps=limit, num_workers=2)
        assert outcome.code == 0
        assert "session limit (--steps) reached" in outcome.out
    assert pretrain_here(**basics, output_dir=pieces, max_steps=10).code == 0
    ends = [(row["reason"], row["step"]) for row in metrics(pieces, "end")]
    assert ends == [("session_limit", 1), ("session_limit", 5), ("session_limit", 7), ("finished", 10)]
    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, 10)[part], checkpoint(pieces, 10)[part], part)
    losses = [[row["loss"] for row in metrics(run, "train")] for run in (whole, pieces)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_stop_on_request_saves_the_last_finished_update_and_ends_with_75(
    basics: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    # Hundreds of micro-batches an update: a stop must not wait for the end of one.
    flags = {**basics, "global_batch_size": 200, "local_batch_size": 1, "num_steps_per_checkpoint": 1000}
    with started(pretraining_command(**flags, output_dir=run, max_steps=500), log) as process:
        wait_until(lambda: len(metrics(run, "train")) >= 1 or process.poll() is not None, 120, "the first update")
        process.send_signal(number)
        code = process.wait(timeout=15)
    assert code == 75, log.read_text()
    done = len(metrics(run, "train"))
    assert [(row["reason"], row["step"]) for row in metrics(run, "end")] == [("signal", done)]
    assert checkpoint(run, done)["data_position"]["samples"] == done * 200


def test_the_time_limit_ends_a_session_with_75(basics: dict[str, Any], tmp_path: Path) -> None:
    outcome = pretrain_here(**basics, output_dir=tmp_path / "run", max_steps=100_000, time_limit_minutes=0.02)
    assert outcome.code == 75
    assert metrics(tmp_path / "run", "end")[-1]["reason"] == "time_limit"


def test_a_finished_run_says_so_and_overwrite_starts_anew(basics: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert pretrain_here(**basics, output_dir=run, max_steps=2).code == 0
    again = pretrain_here(**basics, output_dir=run, max_steps=2)
    assert again.code == 0
    assert "finished" in again.out
    assert len(metrics(run, "train")) == 2
    (run / "notes-of-the-owner.txt").write_text("keep me")
    anew = pretrain_here(**{**basics, "seed": 12}, output_dir=run, max_steps=1, overwrite=True)
    assert anew.code == 0
    assert len(metrics(run, "train")) == 1
    assert (run / "notes-of-the-owner.txt").exists()


def test_a_changed_learning_rate_is_applied_and_told_a_changed_shape_is_refused(
    basics: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert pretrain_here(**basics, output_dir=run, max_steps=6, steps=3).code == 0
    changed = {**basics, "learning_rate": 1e-3, "lr_decay": "constant"}
    outcome = pretrain_here(**changed, output_dir=run, max_steps=6, steps=1)
    assert outcome.code == 0, outcome.err
    assert "learning_rate: 0.005 → 0.001" in outcome.out
    assert metrics(run, "train")[-1]["learning_rate"] == 1e-3
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**json.loads(Path(basics["model_config_file"]).read_text()), "intermediate_size": 48}))
    refused = pretrain_here(**{**basics, "model_config_file": other}, output_dir=run, max_steps=6)
    assert refused.code == 2
    assert "intermediate_size: 64" in refused.err
    assert "48 now" in refused.err


def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    basics: dict[str, Any], tmp_path: Path
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert pretrain_here(**basics, output_dir=whole, max_steps=8).code == 0
    assert pretrain_here(**basics, output_dir=run, max_steps=8, steps=6).code == 0
    newest = run / "pretrain_ckpts" / "ckpt_6.pt"
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    newest.write_bytes(damaged)
    outcome = pretrain_here(**basics, output_dir=run, max_steps=8)
    assert outcome.code == 0
    assert "ckpt_6.pt" in outcome.err
    assert "ckpt_3.pt" in outcome.out + outcome.err
    assert [row["step"] for row in metrics(run, "train")] == list(range(1, 9))
    assert_same_state(checkpoint(whole, 8)["model"], checkpoint(run, 8)["model"])


def test_a_second_writer_in_one_folder_is_refused(basics: dict[str, Any], tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    with started(pretraining_command(**basics, output_dir=run, max_steps=100_000), log) as process:
        wait_until(lambda: len(metrics(run, "train")) >= 1 or process.poll() is not None, 120, "the first update")
        refused = pretrain_here(**basics, output_dir=run, max_steps=8)
    assert refused.code == 1
    assert "is writing here" in refused.err


def test_evaluation_alone_prints_the_loss_that_the_run_logged(
    basics: dict[str, Any], shards64: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert pretrain_here(**basics, output_dir=run, max_steps=3).code == 0
    logged = metrics(run, "eval")[-1]["mlm_loss"]
    outcome = pretrain_here(
        init_checkpoint=run, eval_dir=shards64, max_steps=0, max_predictions_per_seq=10, local_batch_size=5
    )
    assert outcome.code == 0, outcome.err
    assert f"mlm_loss {logged:.4f}" in outcome.out


def test_starting_from_an_exported_model_begins_at_its_loss(basics: dict[str, Any], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert pretrain_here(**basics, output_dir=first, max_steps=3).code == 0
    flags = {**basics, "model_config_file": None, "init_checkpoint": first / "model"}
    outcome = pretrain_here(**flags, output_dir=second, max_steps=1)
    assert outcome.code == 0, outcome.err
    assert metrics(second, "eval")[0]["mlm_loss"] == pytest.approx(metrics(first, "eval")[-1]["mlm_loss"], rel=1e-6)


def test_adamw_bf16_fp16_and_recomputed_activations_train(basics: dict[str, Any], tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    assert pretrain_here(**basics, output_dir=plain, max_steps=3).code == 0
    reference = [row["loss"] for row in metrics(plain, "train")]
    for name, flags, tolerance in (
        ("recomputed", {"checkpoint_activations": True}, 1e-6),
        ("bf16", {"precision": "bf16"}, 2e-2),  # 8 bits of mantissa
        ("fp16", {"fp16": True}, 5e-3),  # 11 bits
        ("reference", {"attention": "reference"}, 1e-5),
    ):
        run = tmp_path / name
        outcome = pretrain_here(**basics, **flags, output_dir=run, max_steps=3)
        assert outcome.code == 0, outcome.err
        assert [row["loss"] for row in metrics(run, "train")] == pytest.approx(reference, rel=tolerance), name
    adamw = pretrain_here(**{**basics, "optimizer": "adamw"}, output_dir=tmp_path / "adamw", max_steps=3)
    assert adamw.code == 0, adamw.err


def test_gradients_that_stay_infinite_end_the_run_with_advice(
    basics: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bert_pytorch.training.step.global_norm", lambda gradients: torch.tensor(float("inf")).double())
    outcome = pretrain_here(**basics, output_dir=tmp_path / "run", max_steps=100)
    assert outcome.code == 1
    assert "not finite" in outcome.err
    assert "--learning_rate" in outcome.err
    assert metrics(tmp_path / "run", "end")[-1]["reason"] == "failed"
    assert threading.active_count() < 10
