"""Many GLUE runs side by side, each a process with a GPU or a part of the cores of its own."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from bert_pytorch.errors import EXIT_STOPPED, BertPytorchError
from bert_pytorch.files import atomic_write_json, exclusive_lock
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.glue_table import Run, collect_submissions, lines_of, results_of, summary
from bert_pytorch.runtime.device import gpu_count
from bert_pytorch.runtime.stopping import StopRequests
from bert_pytorch.tracking.console import console_log

logger = logging.getLogger(__name__)

PROGRAM = Path(__file__).resolve().parents[2] / "run_glue.py"
TABLE, GIVEN = "glue_results.json", "given_config.json"
FROM_MNLI = ("rte", "mrpc", "sts-b")
"""Small tasks that gain from MNLI's encoder (Liu et al. 2019, section 5.1)."""


class StoppedError(BertPytorchError):
    """The runs were asked to stop; what they had is saved."""

    exit_code = EXIT_STOPPED


def run_all(
    config: FinetuningConfig, tasks: Sequence[str], seeds: Sequence[int], parallel: int, *, mnli_init: bool
) -> None:
    """Run every task with every seed, and write and print the table; runs that are finished are not repeated.

    Args:
        config: of the program; every run gets it with its own task, seed and folder.
        tasks: names.
        seeds: one run of each task for each.
        parallel: runs at a time.
        mnli_init: whether `FROM_MNLI` begin from MNLI's model of the same seed, which is made first.

    Raises:
        BertPytorchError: naming the runs that failed, each with its message.
        StoppedError: if a stop was asked for.
    """
    output_dir = config.folder()
    order = sorted(tasks, key=lambda task: mnli_init and task != "mnli")  # others wait for it
    runs = [Run(task, seed) for task in order for seed in seeds]
    stop = StopRequests(config.time_limit_seconds())
    stop.listen()
    with exclusive_lock(output_dir, "runs"), console_log(output_dir / f"{config.log_prefix}.txt"):
        failures = _Crew(config, parallel, mnli_init, stop).work(runs)
        if failures:
            raise BertPytorchError(f"{len(failures)} of {len(runs)} runs failed:\n" + "\n".join(failures))
        if config.do_train and config.steps is not None:
            logger.info("no table: these sessions ended by --steps; start again without it")
            return
        if config.do_eval:
            table = summary(output_dir, tasks, seeds)
            atomic_write_json(output_dir / TABLE, table)
            for line in lines_of(table):
                logger.info("%s", line)
        if config.do_predict:
            collect_submissions(output_dir, tasks, seeds)


class _Crew:
    """Starts runs as soon as there is a place, and what they begin from, for them."""

    def __init__(self, config: FinetuningConfig, parallel: int, mnli_init: bool, stop: StopRequests) -> None:
        self._config = config
        self._mnli_init = mnli_init
        self._stop = stop
        self._places = list(range(parallel))
        self._parallel = parallel
        self._processes: dict[Run, subprocess.Popen[str]] = {}

    def work(self, runs: Sequence[Run]) -> list[str]:
        """Run all; return a message for each that failed."""
        waiting, failures = list(runs), []
        done: set[Run] = set()
        running: dict[Future[str], tuple[Run, int]] = {}
        with ThreadPoolExecutor(self._parallel) as pool:
            while waiting or running:
                while self._places and (run := self._next(waiting, done)) is not None:
                    waiting.remove(run)
                    place = self._places.pop(0)
                    running[pool.submit(self._run, run, place)] = run, place
                finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in finished:
                    run, place = running.pop(future)
                    self._places.append(place)
                    done.add(run)
                    if message := future.result():
                        failures.append(f"{run.task}, seed {run.seed}: {message}")
                        waiting = [other for other in waiting if self._needs(other) != run]
                if self._stop.reason() is not None:
                    waiting = []
                    for process in list(self._processes.values()):
                        process.send_signal(signal.SIGTERM)
                    wait(running)
                    raise StoppedError("stopped on request; start again to continue.")
        return failures

    def _next(self, waiting: Sequence[Run], done: set[Run]) -> Run | None:
        return next((run for run in waiting if (needs := self._needs(run)) is None or needs in done), None)

    def _needs(self, run: Run) -> Run | None:
        return Run("mnli", run.seed) if self._mnli_init and run.task in FROM_MNLI else None

    def _run(self, run: Run, place: int) -> str:
        """Run one to its end; return what went wrong."""
        folder = run.folder(self._config.folder())
        needs, started = self._needs(run), time.monotonic()
        values: dict[str, Any] = self._config.model_dump(mode="json", exclude_none=True, exclude={"config_file"})
        values |= {"task_name": [run.task], "seed": run.seed, "output_dir": str(folder)}
        values |= {"seeds": [], "parallel_tasks": 1, "mnli_init": False}
        if needs is not None:
            values["init_checkpoint"] = str(needs.folder(self._config.folder()))
        atomic_write_json(folder / GIVEN, values)
        logger.info("%s, seed %d: started, %s", run.task, run.seed, folder)
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "--config_file", str(folder / GIVEN)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | _share(place, self._parallel),
        )
        self._processes[run] = process
        if self._stop.reason() is not None:  # it was asked for while this one was being started
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        del self._processes[run]
        if process.returncode:
            told = [line for line in errors.strip().splitlines() if not line.startswith("warning")]
            return "\n".join(told[-20:]) or f"exit code {process.returncode}; see {folder}"
        results = results_of(folder)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in results.items())
        logger.info("%s, seed %d: %s  (%.0f s)", run.task, run.seed, shown, time.monotonic() - started)
        return ""


def _share(place: int, parallel: int) -> dict[str, str]:
    """Return the environment that gives a run its GPU, or its part of the cores."""
    if gpus := gpu_count():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        return {"CUDA_VISIBLE_DEVICES": visible[place % len(visible)]}
    if parallel == 1:
        return {}
    threads = str(max(1, len(os.sched_getaffinity(0)) // parallel))
    return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
