"""Many GLUE runs as one table: means and deviations over seeds, the benchmark's average, one folder of submissions."""

import json
import logging
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.finetuning.results import RESULTS
from bert_pytorch.tasks.glue.layouts import LAYOUTS, score
from bert_pytorch.tasks.glue.task import SUBMISSIONS

logger = logging.getLogger(__name__)


class Run(NamedTuple):
    """One task with one seed."""

    task: str
    seed: int

    def folder(self, output_dir: Path) -> Path:
        """Return its output folder."""
        return output_dir / LAYOUTS[self.task].folder / f"seed_{self.seed}"


def results_of(folder: Path) -> dict[str, float]:
    """Return a run's metrics; nothing where it evaluated nothing."""
    path = folder / RESULTS
    values: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values


def summary(output_dir: Path, tasks: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return each task's metrics over the seeds: mean and standard deviation; its score, and the average of scores.

    Args:
        output_dir: of all runs.
        tasks: names.
        seeds: of the runs.
    """
    table: dict[str, Any] = {}
    for task in tasks:
        by_seed = {seed: results_of(Run(task, seed).folder(output_dir)) for seed in seeds}
        names = [name for name in by_seed[seeds[0]] if all(name in results for results in by_seed.values())]
        series = {name: [results[name] for results in by_seed.values()] for name in names}
        table[task] = {
            "seeds": {str(seed): results for seed, results in by_seed.items()},
            "mean": {name: statistics.fmean(values) for name, values in series.items()},
            "deviation": {
                name: statistics.stdev(values) if len(values) > 1 else None for name, values in series.items()
            },
            "score": statistics.fmean(score(task, results) for results in by_seed.values()),
        }
    table["average"] = statistics.fmean(table[task]["score"] for task in tasks)
    return table


def lines_of(table: dict[str, Any]) -> list[str]:
    """Return a summary as a table for people, in percent."""
    tasks = [name for name in table if name != "average"]
    lines = [f"{'task':8}  {'score':>6}  metrics"]
    for task in tasks:
        entry = table[task]
        shown = []
        for name, mean in entry["mean"].items():
            deviation = entry["deviation"][name]
            spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
            shown.append(f"{name} {100 * mean:.2f}{spread}")
        lines.append(f"{LAYOUTS[task].folder:8}  {100 * entry['score']:6.2f}  {', '.join(shown)}")
    which = "all nine tasks" if len(tasks) == len(LAYOUTS) else f"{len(tasks)} of {len(LAYOUTS)} tasks"
    return [*lines, f"{'average':8}  {100 * table['average']:6.2f}  over {which}"]


def collect_submissions(output_dir: Path, tasks: Sequence[str], seeds: Sequence[int]) -> None:
    """Copy each task's submission, of the seed that was evaluated best, into one folder, and zip it for the site."""
    collected = output_dir / SUBMISSIONS
    collected.mkdir(exist_ok=True)
    for task in tasks:
        by_seed = {seed: results_of(Run(task, seed).folder(output_dir)) for seed in seeds}
        best = max(seeds, key=lambda seed: score(task, by_seed[seed]) if by_seed[seed] else 0.0)
        for file in (Run(task, best).folder(output_dir) / SUBMISSIONS).glob("*.tsv"):
            shutil.copy2(file, collected / file.name)
    shutil.make_archive(str(collected), "zip", collected)
    logger.info("submission: %s.zip", collected)
