"""What the benchmark of training rests on: who runs when, which updates count, which rows a set has."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.training_data import rows_of_shape
from benchmarks.training_profile import group_of
from benchmarks.training_sides import Command, Side, Step

PROGRAM = """
import json, sys, time
last = time.perf_counter()
with open(sys.argv[1], "w") as rows:
    while True:
        time.sleep(0.02)
        now = time.perf_counter()
        print(json.dumps({"seconds": now - last, "tokens": 10, "flops": 1e6}), file=rows, flush=True)
        last = now
"""
PAUSE = 1.0


def command(folder: Path, program: str) -> Command:
    rows = folder / "rows.jsonl"
    return Command([sys.executable, "-c", program, str(rows)], folder, rows, lambda row: Step(**row))


def test_a_side_stands_still_between_its_turns_and_the_update_that_a_stop_cuts_in_two_does_not_count(
    tmp_path: Path,
) -> None:
    with Side("fake", command(tmp_path, PROGRAM), tmp_path / "log") as side:
        side.warm_up(2)
        written = []
        for _ in range(3):
            turn = side.take_turn(0.1, 3)
            assert len(turn.steps) >= 3
            assert turn.seconds >= 0.1
            assert max(step.seconds for step in turn.steps) < PAUSE
            time.sleep(0.05)  # a stop is asked for; give it time to arrive
            before = len((tmp_path / "rows.jsonl").read_text().splitlines())
            time.sleep(PAUSE)
            written.append(len((tmp_path / "rows.jsonl").read_text().splitlines()) - before)
        assert written == [0, 0, 0]
        assert side.peak_mib() > 1
    pauses = [json.loads(line)["seconds"] for line in (tmp_path / "rows.jsonl").open()]
    assert sum(seconds > PAUSE for seconds in pauses) == 2  # the program itself did feel them


def test_a_side_that_ends_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    ending = command(tmp_path, "raise SystemExit('no such model')")
    with (
        Side("fake", ending, tmp_path / "log") as side,
        pytest.raises(SystemExit, match=r"(?s)fake ended.*no such model"),
    ):
        side.warm_up(1)


def test_rows_follow_the_histogram_where_there_are_such_rows_and_else_the_nearest_none_twice() -> None:
    lengths = np.asarray([5, 9, 9, 3, 5, 7, 2])
    histogram = np.zeros(11, np.int64)
    histogram[[9, 5, 10]] = [1, 2, 1]
    chosen = rows_of_shape(lengths, histogram)
    assert sorted(lengths[chosen]) == [5, 5, 9, 9]
    assert len(set(chosen)) == 4
    assert list(chosen) == sorted(chosen)


def event(*names: str) -> Any:
    """An operator within others, the outermost one first."""
    found = None
    for name in names:
        found = SimpleNamespace(name=name, cpu_parent=found)
    return found


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (("aten::linear", "aten::addmm"), "GEMM"),
        (("Optimizer.step#AdamW.step", "aten::copy_"), "optimizer"),
        (("autograd::engine::evaluate_function: EmbeddingBackward0", "aten::fill_"), "embedding gradient"),
        (("aten::scaled_dot_product_attention", "aten::empty"), "attention"),
        (("aten::cross_entropy_loss", "aten::log_softmax"), "loss"),
        (("aten::dropout", "aten::bernoulli_"), "dropout"),
        (("aten::embedding", "aten::index_select"), "copies and fills"),
        (("aten::gelu_backward",), "LayerNorm, GELU, elementwise"),
        (("something new",), "other operators"),
    ],
)
def test_an_operator_belongs_to_what_it_is_done_for(names: tuple[str, ...], group: str) -> None:
    assert group_of(event(*names)) == group
