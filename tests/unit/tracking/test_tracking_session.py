"""A whole session's tracker: its files, TensorBoard read back, resumption, other ranks, configuration."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bert_pytorch.errors import ConfigError, front_door
from bert_pytorch.tracking.config import TrackingConfig
from bert_pytorch.tracking.console import console_log
from bert_pytorch.tracking.records import EndRow, EvalRow, TrainRow
from bert_pytorch.tracking.session import open_tracker


def train_row(step, loss):
    return TrainRow(
        step, 0, loss, 6.25, None, None, None, 4.2e-3, 1.5, 96.0, 12340.0, 0.5, 0.01, None, 1.25, 96 * step, 96
    )


def run_session(directory, first_step, last_step, loss, *, end_row=True):
    with open_tracker(directory, TrackingConfig(), first_step=first_step, last_step=last_step) as tracker:
        for step in range(first_step + 1, last_step + 1):
            tracker.train(train_row(step, loss))
        tracker.evaluation(EvalRow(last_step, 5.5, 0.125, None, 4000))
        if end_row:
            tracker.end(EndRow("finished", last_step, 12.5, 12340.0))


def scalars(directory, tag):
    accumulator = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_session_writes_every_contracted_file(tmp_path):
    with console_log(tmp_path / "logfile.txt"):
        run_session(tmp_path, 0, 2, loss=6.5)
    assert {path.name for path in tmp_path.iterdir()} == {
        "metrics.jsonl", "logfile_metrics.csv", "logfile.txt", "tensorboard",
    }  # fmt: skip
    events = [json.loads(line)["event"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert events == ["train", "train", "eval", "end"]
    assert len((tmp_path / "logfile_metrics.csv").read_text().splitlines()) == 3
    assert "finished at step 2" in (tmp_path / "logfile.txt").read_text()


def test_tensorboard_has_the_same_scalars(tmp_path):
    run_session(tmp_path, 0, 3, loss=6.5)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    train = "epoch loss mlm_loss learning_rate grad_norm sequences_per_second tokens_per_second step_seconds"
    wanted = [
        f"train/{name}" for name in [*train.split(), "data_wait_seconds", "peak_memory_gib", "samples", "sequences"]
    ]
    wanted += [f"eval/{name}" for name in ("mlm_loss", "mlm_accuracy", "masked_tokens")]
    assert sorted(accumulator.Tags()["scalars"]) == sorted(wanted)
    assert scalars(tmp_path, "train/loss") == [(1, 6.5), (2, 6.5), (3, 6.5)]
    assert scalars(tmp_path, "eval/mlm_accuracy") == [(3, 0.125)]


def test_tensorboard_shows_no_update_twice_after_resumption(tmp_path):
    run_session(tmp_path, 0, 4, loss=6.5)
    run_session(tmp_path, 2, 5, loss=5.5)
    assert scalars(tmp_path, "train/loss") == [(1, 6.5), (2, 6.5), (3, 5.5), (4, 5.5), (5, 5.5)]


def test_flush_brings_each_file_to_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    with open_tracker(tmp_path, TrackingConfig(), first_step=0, last_step=9) as tracker:
        tracker.flush()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert set(synced) == {str(tmp_path / "metrics.jsonl"), str(tmp_path / "logfile_metrics.csv"), str(events)}


def test_rows_are_there_before_closing(tmp_path):
    tracker = open_tracker(tmp_path, TrackingConfig(), first_step=0, last_step=9)
    tracker.train(train_row(1, 6.5))
    assert scalars(tmp_path, "train/loss") == [(1, 6.5)]
    tracker.close()
    tracker.close()


def test_other_ranks_write_nothing(tmp_path, capsys):
    with open_tracker(tmp_path, TrackingConfig(), first_step=0, last_step=2, rank=1) as tracker:
        tracker.train(train_row(1, 6.5))
        tracker.evaluation(EvalRow(1, 5.5, 0.125, None, 4000))
        tracker.end(EndRow("finished", 1, 12.5, 12340.0))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("terminal", "disabled", "bar", "plain_line"),
    [(True, False, True, False), (True, True, False, True), (False, False, False, True)],
)
def test_bar_on_a_terminal_else_plain_lines(tmp_path, capsys, terminal, disabled, bar, plain_line):
    config = TrackingConfig(disable_progress_bar=disabled)
    with console_log(None), open_tracker(tmp_path, config, first_step=0, last_step=2, terminal=terminal) as tracker:
        tracker.train(train_row(1, 6.5))
    output = capsys.readouterr()
    assert ("1/2 [" in output.err) == bar
    assert ("step 1/2  loss 6.50" in output.out) == plain_line


def test_first_and_last_update_are_logged_whatever_the_interval():
    config = TrackingConfig(log_interval=4)
    assert [step for step in range(6, 15) if config.logs(step, first_step=5, last_step=14)] == [6, 8, 12, 14]


@pytest.mark.parametrize("prefix", ["../evil", "/etc/cron", "a/b", ""])
def test_prefix_that_leaves_the_folder_is_refused(prefix):
    with pytest.raises(ConfigError, match=r"log_prefix: found .*wanted the start of a file name"):
        TrackingConfig(log_prefix=prefix).checked("command line")


@pytest.mark.parametrize("prefix", ["logfile", "pretraining_phase1_log", "..", "übung 1"])
def test_prefix_that_stays_in_the_folder_is_accepted(prefix, tmp_path):
    config = TrackingConfig(log_prefix=prefix).checked("command line")
    open_tracker(tmp_path, config, first_step=0, last_step=1).close()
    assert (tmp_path / f"{prefix}_metrics.csv").exists()


def test_disk_that_fills_is_one_error_without_a_traceback(tmp_path, capfd):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", tmp_path], check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")

    def main():
        with open_tracker(tmp_path, TrackingConfig(), first_step=0, last_step=10_000) as tracker:
            for step in range(1, 10_000):
                tracker.train(train_row(step, 6.5))

    try:
        capfd.readouterr()
        assert front_door(main) == 1
        assert re.fullmatch(rf"error: {tmp_path}/\S+: the disk is full\. .*\n", capfd.readouterr().err)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
