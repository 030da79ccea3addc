"""Means and deviations over seeds, and the benchmark's average."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_pytorch.finetuning.glue_table import Run, lines_of, summary

FOUND = {
    ("mrpc", 1): {"f1": 0.9, "accuracy": 0.8},
    ("mrpc", 2): {"f1": 0.8, "accuracy": 0.7},
    ("mrpc", 3): {"f1": 0.85, "accuracy": 0.9},
    ("mnli", 1): {"accuracy": 0.6, "accuracy_mm": 0.7, "diagnostics_mcc": 0.1},
    ("mnli", 2): {"accuracy": 0.5, "accuracy_mm": 0.6, "diagnostics_mcc": 0.3},
    ("mnli", 3): {"accuracy": 0.7, "accuracy_mm": 0.5, "diagnostics_mcc": 0.2},
}


def test_tables_hold_means_sample_deviations_and_the_average_of_official_scores(tmp_path: Path) -> None:
    for (task, seed), results in FOUND.items():
        folder = Run(task, seed).folder(tmp_path)
        folder.mkdir(parents=True)
        (folder / "eval_results.json").write_text(json.dumps(results))
    table = summary(tmp_path, ("mrpc", "mnli"), (1, 2, 3))
    values = np.array([FOUND["mrpc", seed]["accuracy"] for seed in (1, 2, 3)])
    assert table["mrpc"]["mean"]["accuracy"] == pytest.approx(values.mean())
    assert table["mrpc"]["deviation"]["accuracy"] == pytest.approx(values.std(ddof=1))
    assert table["mrpc"]["score"] == pytest.approx((0.85 + 0.8) / 2)
    assert table["mnli"]["score"] == pytest.approx(0.6)  # diagnostics do not count
    assert table["average"] == pytest.approx((0.825 + 0.6) / 2)
    lines = lines_of(table)
    assert lines[1].split() == ["MRPC", "82.50", "f1", "85.00", "±", "5.00,", "accuracy", "80.00", "±", "10.00"]
    assert lines[-1].split() == ["average", "71.25", "over", "2", "of", "9", "tasks"]


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    folder = Run("cola", 5).folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "eval_results.json").write_text('{"mcc": 0.25}')
    table = summary(tmp_path, ("cola",), (5,))
    assert table["cola"]["deviation"] == {"mcc": None}
    assert "±" not in lines_of(table)[1]
