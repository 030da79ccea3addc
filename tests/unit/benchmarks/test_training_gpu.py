"""What the GPU's benchmark rests on: when full speed is reached, what counts from then on, who gets how much time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.training_gpu_runs import (
    RUNS,
    STEADY_SECONDS,
    STEADY_UPDATES,
    Update,
    choices_told,
    figures,
    full_speed,
    is_steady,
    time_for,
)
from benchmarks.training_gpu_ways import compared
from benchmarks.training_sides import Command, Side, Step, Turn
from tests.support.data import REPOSITORY

SUITE = REPOSITORY / "benchmarks" / "gpu_suite.sh"


def updates(*rates: float, seconds: float = 1.0) -> list[Update]:
    """Updates of some seconds each at these rates; the process took 10 s to start."""
    return [
        Update(
            10 + seconds * (number + 1),
            {
                "tokens_per_second": rate, "sequences_per_second": rate / 128, "step_seconds": seconds, "loss": 9.0,
                "data_wait_seconds": 0.1 * seconds, "mfu": rate / 1000, "peak_memory_gib": 3.0,
            },
        )
        for number, rate in enumerate(rates)
    ]  # fmt: skip


def test_full_speed_is_the_first_update_within_5_percent_of_the_later_halfs_median() -> None:
    assert full_speed(updates(1, 50, 94.9, 95, 100, 100, 100, 100)) == 3
    assert full_speed(updates(100, 100, 100, 100)) == 0
    assert full_speed(updates(100, 1, 100)) is None  # too few to know


def test_a_slow_start_is_no_part_of_the_rate() -> None:
    found = figures(updates(1, 2, 100, 200, 200, 100, 100, 100))
    assert found["tokens_per_second"] == pytest.approx((200 + 200 + 3 * 100) / 5)
    assert found["mfu"] == pytest.approx(0.14)
    assert (found["first_update_seconds"], found["full_speed_seconds"], found["updates"]) == (11, 13, 5)
    assert found["data_wait_share"] == pytest.approx(0.1)


def test_a_rate_is_of_all_tokens_over_all_seconds() -> None:
    slow, fast = updates(100, 100, 100, 100, seconds=3.0), updates(100, 400)
    assert figures([*fast[:1], *slow, fast[1]])["tokens_per_second"] == pytest.approx((12 * 100 + 400) / 13, rel=1e-3)


def test_too_few_updates_are_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"2 updates .* --seconds"):
        figures(updates(1, 100))


def test_a_run_has_measured_enough_after_so_many_updates_and_seconds_at_full_speed() -> None:
    enough = [1.0, *[100.0] * (STEADY_UPDATES + 1)]
    assert is_steady(updates(*enough, seconds=STEADY_SECONDS))
    assert not is_steady(updates(*enough[:-1], seconds=STEADY_SECONDS))
    assert not is_steady(updates(*enough, seconds=0.9 * STEADY_SECONDS / STEADY_UPDATES))


def test_a_run_gets_what_is_left_and_one_that_could_not_start_says_how_to_make_it_later() -> None:
    run = RUNS[0]
    assert time_for(run, 1000.0) == run.most_seconds
    assert time_for(run, 30.0) == 30.0
    with pytest.raises(ValueError, match=r"--rows H1"):
        time_for(run, 5.0)


def test_what_a_run_chose_is_read_from_its_console() -> None:
    log = (
        "device: cuda:0, an H100; ranks: 1\n12:00:01 attention: triton: measured: triton 0.1 ms, sdpa 0.9 ms\n"
        "attention pattern: 3\nkernels: lamb triton\n"
    )
    assert choices_told(log) == {
        "attention": "triton: measured: triton 0.1 ms, sdpa 0.9 ms", "kernels": "lamb triton",
    }  # fmt: skip


def test_ratios_are_of_one_round_and_ours_over_hugging_faces() -> None:
    rounds = [
        {"ours": Turn([Step(1.0, mine, 5e12)], 1.0), "huggingface_tuned": Turn([Step(2.0, theirs, 4e12)], 1.0)}
        for mine, theirs in ((300, 200), (200, 200), (400, 400))
    ]
    found = compared(rounds, ["ours", "huggingface_tuned"], 1e13)
    assert found["ratios"] == {"ours": [2.0, 2.0, 3.0]}
    assert found["mfu"] == {"ours": 0.5, "huggingface_tuned": 0.2}
    assert found["tokens_per_second"] == {"ours": 300, "huggingface_tuned": 100}


def test_a_followed_program_is_heard_until_its_time_is_over(tmp_path: Path) -> None:
    program = (
        "import json, sys, time\nwith open(sys.argv[1], 'w') as rows:\n while True:\n  time.sleep(0.05)\n"
        "  print(json.dumps({'seconds': 0.05, 'tokens': 1, 'flops': 0.0}), file=rows, flush=True)"
    )
    rows = tmp_path / "rows.jsonl"
    command = Command([sys.executable, "-c", program, str(rows)], tmp_path, rows, lambda row: Step(**row))
    with Side("fake", command, tmp_path / "log") as side:
        ends = [ended for ended, _ in side.follow(2.0)]
    assert len(ends) >= 2
    assert ends == sorted(ends)
    assert ends[-1] < 2.5


def test_each_goal_is_run_with_compilation_and_without() -> None:
    for goal in ("H1", "H2", "H3"):
        assert [run.compiled for run in RUNS if run.id == goal].count(True) == 1
        assert [run.compiled for run in RUNS if run.id == goal].count(False) == 1
    assert all(run.row.batch_size % run.micro == 0 for run in RUNS)


def test_rows_that_fail_are_lines_and_do_not_keep_the_others_from_their_turn(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.training_gpu", "--rehearse", "--rows", "H1", "H4", "--seconds", "1"]
    words += ["--output", str(tmp_path), "--data", str(tmp_path / "nothing"), "--work", str(tmp_path / "work")]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["H1", "H11", "H4", "H1", "H11"]
    assert all("not started" in row["error"] for row in rows)
    assert (tmp_path / "training_gpu.jsonl").read_text() == done.stdout


@pytest.mark.parametrize(("words", "wanted"), [(["--fast"], "--prepare"), (["--rows", "fast"], "H1, H2, H3 or H4")])
def test_the_suite_tells_which_options_it_takes(words: list[str], wanted: str) -> None:
    done = subprocess.run([str(SUITE), *words], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 2
    assert wanted in done.stderr
