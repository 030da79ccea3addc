"""Rows of fine-tuning in the files that a run writes."""

import csv
import json
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from bert_pytorch.tracking.config import TrackingConfig
from bert_pytorch.tracking.records import EndRow, TaskEvalRow, TaskStartRow, TaskTrainRow
from bert_pytorch.tracking.session import open_tracker


def test_rows_of_a_task_reach_every_file_and_those_past_the_start_are_dropped(tmp_path: Path) -> None:
    row = TaskTrainRow(1, 0, 0.5, 1e-4, 2.0, 8.0, 100.0, 0.1, 0.0, None, 0.2, 16, 16)
    for first_step in (0, 1):
        with open_tracker(
            tmp_path, TrackingConfig(), first_step=first_step, last_step=2, columns=TaskTrainRow._fields, terminal=False
        ) as tracker:
            tracker.start(TaskStartRow(first_step, 0, 1, True, 90))
            for step in range(first_step + 1, 3):
                tracker.train(row._replace(step=step))
                tracker.evaluation(TaskEvalRow(step, {"accuracy": 0.75, "f1": 0.5}))
            tracker.end(EndRow("finished", 2, 0.1, None))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(each["event"], each["step"]) for each in rows] == [
        ("start", 0), ("train", 1), ("eval", 1), ("start", 1), ("train", 2), ("eval", 2), ("end", 2),
    ]  # fmt: skip
    assert rows[2] == {"event": "eval", "step": 1, "accuracy": 0.75, "f1": 0.5}
    table = list(csv.DictReader((tmp_path / "logfile_metrics.csv").open()))
    assert [line["step"] for line in table] == ["1", "2"]
    assert list(table[0]) == list(TaskTrainRow._fields)
    tags = {
        value.tag
        for file in (tmp_path / "tensorboard").iterdir()
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    }
    assert {"train/loss", "train/learning_rate", "eval/accuracy", "eval/f1"} <= tags
