"""How fast is training on one GPU (goals H1, H2, H3, H4, H11)?

    python -m benchmarks.training_gpu --prepare .device_data          # where the real data is
    python -m benchmarks.training_gpu --data .device_data --seconds 330 --output results [--rehearse]
    python -m benchmarks.training_gpu --rows H1 H2 --profile           # which kernels take an update's time

`benchmarks/gpu_suite.sh` calls both.  Each run is run_pretraining.py as shipped, bf16, with the attention and kernels
that it chose itself, with --compile and without, in micro-batches that fill most of 80 GiB; H4 is BERT-base beside
Hugging Face's tuned Trainer, in turns (`benchmarks.training_sides`).  One JSON line a run, the error where one failed.
Rates are real tokens and sequences a second of wall clock, data included, from full speed on; `mfu` is of the data
sheet's peak.

H11, `full_speed_seconds`: from the start of the process to the end of the first update within 5 % of the median rate.
The runs of H1 begin with empty caches of Triton and inductor, later ones find what those left.

Runs end as soon as enough was measured.  Those for which no time is left say so: `--rows` makes them another time.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.process_tree import REPOSITORY
from benchmarks.training_data import prepare_slice
from benchmarks.training_sides import Command, Side, Step, Turn, ours, peer
from benchmarks.training_step import Row, ratio, run_words
from bert_pytorch.runtime.peak import known_peak_flops

PEER = "huggingface_tuned"
FULL_SPEED = 0.95
STEADY_SECONDS = 8.0
STEADY_UPDATES = 10
"""What is measured from full speed on, at least; then a run ends before its time."""
LEAST_SECONDS = 20.0
"""A run is not started with less."""
ROUND_SECONDS = 3.0
MOST_ROUNDS = 5
PROFILE_SKIPS, PROFILED_UPDATES, PROFILED_KERNELS = 6, 2, 45
SHARE_OF_STARTS = 0.6
"""Of the time of H4, at most; the rest is for rounds."""
ROWS_OF_H4 = 37
"""Rows of 512 tokens that take H4's 64 sequences of 256 tokens on average: in 99 of 100 updates no more are needed."""
WARM_UP_UPDATES = 12
"""Of each side of H4: torch.compile meets new lengths in the first ones."""


class Run(NamedTuple):
    """One run of run_pretraining.py, or one comparison."""

    id: str
    row: Row
    optimizer: str
    micro: int
    """Sequences of a micro-batch."""
    compiled: bool
    most_seconds: float
    """From its start; it ends as soon as enough was measured."""
    goal: str
    fresh: bool = False
    """Begin with empty caches of compilers."""


_LARGE_128 = Row("bert_large_uncased", 128, 1024, "BERT-large, s128, all full, LAMB")
_LARGE_512 = Row("bert_large_uncased", 512, 512, "BERT-large, Wikipedia-like lengths at s512, LAMB")
_BASE_128 = Row("bert_base_uncased", 128, 2048, "BERT-base, s128, all full, AdamW")
_BASE_512 = Row(
    "bert_base_uncased", 512, 64, "BERT-base, Wikipedia-like lengths at s512, AdamW, beside Hugging Face tuned"
)
_H1 = "1850 / 2150 / 2470 sequences/s on an H200"
_H2 = "850 / 1002 / 1170 sequences/s on an H200"
_H3 = "650k / 850k / 1.05M tokens/s on an H200"
RUNS = (  # what matters most first
    Run("H1", _LARGE_128, "lamb", 512, False, 60, _H1, fresh=True),
    Run("H4", _BASE_512, "adamw", 64, True, 150, "1.5 / 2 / 2.4 times"),
    Run("H2", _LARGE_512, "lamb", 256, False, 60, _H2),
    Run("H3", _BASE_128, "adamw", 1024, False, 60, _H3),
    Run("H1", _LARGE_128, "lamb", 512, True, 100, _H1, fresh=True),
    Run("H2", _LARGE_512, "lamb", 256, True, 70, _H2),
    Run("H3", _BASE_128, "adamw", 1024, True, 70, _H3),
)


class Update(NamedTuple):
    """One update of a run."""

    ended: float
    """Seconds since the process was started."""
    values: Mapping[str, Any]
    """Its row of metrics.jsonl."""

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return float(self.values["tokens_per_second"])


def time_for(run: Run, left: float) -> float:
    """Return the seconds that a run gets of those that are left.

    Raises:
        ValueError: if it could not even start in them.
    """
    if left < LEAST_SECONDS:
        raise ValueError(f"not started: {max(0.0, left):.0f} s are left; run again with --rows {run.id}.")
    return min(run.most_seconds, left)


def full_speed(updates: Sequence[Update]) -> int | None:
    """Return the first update within 5 % of the median rate of the later half, None if there are fewer than 4."""
    if len(updates) < 4:
        return None
    usual = statistics.median(update.rate for update in updates[len(updates) // 2 :])
    return next(index for index, update in enumerate(updates) if update.rate >= FULL_SPEED * usual)


def is_steady(updates: Sequence[Update]) -> bool:
    """Whether enough was measured."""
    start = full_speed(updates)
    if start is None:
        return False
    steady = updates[start + 1 :]
    return len(steady) >= STEADY_UPDATES and sum(each.values["step_seconds"] for each in steady) >= STEADY_SECONDS


def figures(updates: Sequence[Update]) -> dict[str, Any]:
    """Sum up a run.

    Raises:
        ValueError: if it came to no full speed and one update after it.
    """
    start = full_speed(updates)
    if start is None or start + 1 == len(updates):
        raise ValueError(f"{len(updates)} updates in the run's time are too few for a rate; give it more --seconds.")
    steady = [update.values for update in updates[start + 1 :]]
    seconds = sum(values["step_seconds"] for values in steady)

    def mean(key: str) -> float:
        return float(sum(values[key] * values["step_seconds"] for values in steady) / seconds)

    return {
        "tokens_per_second": round(mean("tokens_per_second"), 1),
        "sequences_per_second": round(mean("sequences_per_second"), 1),
        "mfu": None if steady[0]["mfu"] is None else round(mean("mfu"), 4),
        "updates": len(steady),
        "seconds": round(seconds, 2),
        "slowest_update": round(max(values["step_seconds"] for values in steady), 3),
        "data_wait_share": round(sum(values["data_wait_seconds"] for values in steady) / seconds, 4),
        "peak_memory_gib": round(steady[-1]["peak_memory_gib"], 2),
        "first_update_seconds": round(updates[0].ended, 1),
        "full_speed_seconds": round(updates[start].ended, 1),
        "loss": [round(updates[0].values["loss"], 3), round(steady[-1]["loss"], 3)],
    }


def choices_told(log: str) -> dict[str, str]:
    """Return what a run's console says of its attention, kernels and compilation, the last word of each."""
    found = re.findall(r"\b(attention|kernels|compile|precision): (.+)", log)
    return {name: said.strip()[:600] for name, said in found}


def main() -> int:
    """Print one JSON line a run; the exit status tells whether all came to a figure."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no stopped side is left behind
    if options.prepare is not None:
        prepare_slice(options.work, options.prepare)
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("BERT_PYTORCH_CACHE", str((options.work / "cache").resolve()))
    runs = [run for run in RUNS if run.id in options.rows]
    if options.profile:
        runs = list({run.id: run._replace(compiled=False) for run in runs}.values())
    end = time.monotonic() + options.seconds
    failed = False
    with (options.output / "training_gpu.jsonl").open("a", encoding="utf-8") as file:
        for run in runs:
            result = _result(run, end - time.monotonic(), options)
            failed |= "error" in result
            for row in (result, _start_of(result)) if run.id == "H1" and not options.profile else (result,):
                line = json.dumps(row, ensure_ascii=False)
                print(line, flush=True)
                print(line, file=file, flush=True)
    return int(failed)


def _result(run: Run, left: float, options: argparse.Namespace) -> dict[str, Any]:
    device = "cpu" if options.rehearse else torch.cuda.get_device_name()
    about = {
        "benchmark": "training_gpu", "id": run.id, "about": run.row.about, "compiled": run.compiled, "goal": run.goal,
        "device": device, "torch": torch.__version__, "rehearsal": options.rehearse,
    }  # fmt: skip
    run = rehearsed(run) if options.rehearse else run
    about |= {"model": run.row.model, "batch_size": run.row.batch_size, "micro_batch": run.micro}
    started = time.monotonic()
    try:
        way = profile if options.profile else compare if run.id == "H4" else measure
        found = way(run, time_for(run, left), options)
    except (Exception, SystemExit) as failure:  # the other rows shall have their turn
        if isinstance(failure, SystemExit) and failure.code == 143:
            raise
        found = {"error": f"{type(failure).__name__}: {failure}"[-3000:]}
    return about | {"took_seconds": round(time.monotonic() - started, 1)} | found


def _start_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the row of H11 that is in one of H1."""
    kept = ("benchmark", "device", "torch", "rehearsal", "model", "compiled", "first_update_seconds", "error")
    row = {key: result[key] for key in kept if key in result}
    return {**row, "id": "H11", "full_speed_seconds": result.get("full_speed_seconds"), "goal": "90 / 45 / 15 s"}


def rehearsed(run: Run) -> Run:
    """Return the same run so small that a CPU can take it."""
    return run._replace(row=run.row._replace(model="bert_tiny_uncased", batch_size=8), micro=4)


def measure(run: Run, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """Train until enough was measured or the time is over."""
    folder = _folder(run, options, "compiled" if run.compiled else "plain")
    rows: list[dict[str, Any]] = []

    def read(values: dict[str, Any]) -> Step | None:
        if values["event"] != "train":
            return None
        rows.append(values)
        return Step(values["step_seconds"], round(values["tokens_per_second"] * values["step_seconds"]), 0.0)

    command = ours(REPOSITORY, _words(run, options, compiled=run.compiled), folder / "run", read)
    command = command._replace(environment=_empty_caches(folder) if run.fresh else {})
    updates: list[Update] = []
    with Side(run.id, command, folder / "log.txt") as side:
        for ended, _ in side.follow(seconds):
            updates.append(Update(ended, rows[len(updates)]))
            if is_steady(updates):
                break
    return figures(updates) | choices_told((folder / "log.txt").read_text(errors="replace"))


def profile(run: Run, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """Return the kernels of an update, milliseconds and calls, those that take most first."""
    folder = _folder(run, options, "profile")
    output = folder / "profile.json"
    command = ours(REPOSITORY, _words(run, options, compiled=run.compiled), folder / "run")
    program = [sys.executable, str(REPOSITORY / "benchmarks/training_profile.py"), str(REPOSITORY), str(output)]
    words = [*program, str(PROFILE_SKIPS), str(PROFILED_UPDATES), *command.words[2:]]
    with (folder / "log.txt").open("wb") as log:
        subprocess.run(words, cwd=command.folder, stdout=log, stderr=log, timeout=seconds, check=True)
    found = json.loads(output.read_text())
    for name, milliseconds, calls in found["kernels"][:PROFILED_KERNELS]:
        print(f"{milliseconds:9.3f} ms {calls:7.1f} calls  {name[:110]}", flush=True)
    busy = sum(milliseconds for _, milliseconds, _ in found["kernels"])
    return {"milliseconds": round(found["milliseconds"], 2), "kernel_milliseconds": round(busy, 2)}


def compare(run: Run, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """Train ours, ours in rows under CUDA graphs, ours compiled and Hugging Face's tuned in turns.

    A side that cannot start in time is told and left out, as long as Hugging Face's and one of ours are there.
    """
    end = time.monotonic() + seconds
    folder = _folder(run, options, "pairs")
    peer_words = [
        *("--input_dir", _set(run, options), "--model", run.row.model, "--batch_size", str(run.row.batch_size)),
        *("--tuned", "--grouped", "--device", "cpu" if options.rehearse else "cuda"),
    ]

    def of_ours(name: str, *more: str, micro: int = run.micro) -> Command:
        words = [*_words(run._replace(micro=micro), options, compiled=False), *more]
        return ours(REPOSITORY, words, _made(folder / name), _reader(options))

    rows, graphs = (4, []) if options.rehearse else (ROWS_OF_H4, ["--cuda_graphs"])
    commands = {
        PEER: peer(peer_words, _made(folder / PEER)),
        "ours": of_ours("ours"),
        "ours_graphs": of_ours("ours_graphs", "--packing", "rows", *graphs, micro=rows),
        "ours_compiled": of_ours("ours_compiled", "--compile"),
    }
    problems: dict[str, str] = {}
    with contextlib.ExitStack() as held:
        sides = []
        patience = seconds * SHARE_OF_STARTS
        started = [
            held.enter_context(Side(name, command, folder / f"{name}.txt", patience))
            for name, command in commands.items()
        ]
        for side in started:  # together, since a device's time is short: each is slower than it would be alone
            try:
                side.warm_up(2 if options.rehearse else WARM_UP_UPDATES)
            except SystemExit as failure:
                problems[side.name] = str(failure)[-1500:]
                side.__exit__()
                continue
            sides.append(side)
        names = [side.name for side in sides]
        if PEER not in names or len(sides) < 2:
            raise SystemExit(f"error: too few sides started: {problems}")
        rounds: list[dict[str, Turn]] = []
        longest = 0.0
        while len(rounds) < MOST_ROUNDS and (not rounds or end - time.monotonic() > longest):
            began = time.monotonic()
            order = sides if len(rounds) % 2 == 0 else sides[::-1]
            rounds.append(
                {side.name: side.take_turn(ROUND_SECONDS / (4 if options.rehearse else 1), 2) for side in order}
            )
            longest = max(longest, time.monotonic() - began)
    return compared(rounds, names, None if options.rehearse else known_peak_flops(torch.device("cuda"))) | {
        "problems": problems,
        **choices_told((folder / "ours.txt").read_text(errors="replace")),
    }


def compared(rounds: Sequence[dict[str, Turn]], names: Sequence[str], peak: float | None) -> dict[str, Any]:
    """Sum up rounds: rates and utilisation of each side, ratios of ours to Hugging Face's (median, least, most)."""
    rates = {name: statistics.median(turns[name].tokens_per_second for turns in rounds) for name in names}
    flops = {name: statistics.median(turns[name].flops_per_second for turns in rounds) for name in names}
    mine = [name for name in names if name != PEER]
    return {
        "rounds": len(rounds),
        "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "mfu": {name: None if peak is None else round(flops[name] / peak, 4) for name in names},
        "ratios": {name: ratio(rounds, attrgetter("tokens_per_second"), name, PEER) for name in mine},
    }


def _reader(options: argparse.Namespace) -> Any:
    """Return what makes rows of metrics.jsonl steps; FLOPs from their utilisation, where the peak is known."""
    peak = None if options.rehearse else known_peak_flops(torch.device("cuda"))

    def read(values: dict[str, Any]) -> Step | None:
        if values["event"] != "train":
            return None
        seconds = values["step_seconds"]
        return Step(
            seconds, round(values["tokens_per_second"] * seconds), (values["mfu"] or 0.0) * (peak or 0.0) * seconds
        )

    return read


def _words(run: Run, options: argparse.Namespace, *, compiled: bool) -> list[str]:
    device = ["--precision", "auto"] if options.rehearse else ["--precision", "bf16"]
    words = run_words(
        run.row,
        _set(run, options),
        device="cpu" if options.rehearse else "cuda",
        optimizer=run.optimizer,
        micro=run.micro,
    )
    return [*words, *device, *(["--compile"] if compiled else [])]


def _set(run: Run, options: argparse.Namespace) -> str:
    return str((options.data / f"set_{run.row.length}").resolve())


def _folder(run: Run, options: argparse.Namespace, name: str) -> Path:
    """Return an empty folder for a run's logs, directly under the output: deeper ones do not come back."""
    folder = options.output.resolve() / f"{run.id}_{name}"
    shutil.rmtree(folder, ignore_errors=True)
    return _made(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _empty_caches(folder: Path) -> dict[str, str]:
    places = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    return {variable: str(_made(folder / "caches" / name)) for variable, name in places.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, help="write the data that travels there, and end")
    parser.add_argument("--data", type=Path, default=REPOSITORY / ".device_data", help="what --prepare wrote")
    parser.add_argument("--rows", nargs="+", choices=sorted({run.id for run in RUNS}), default=["H1", "H2", "H3", "H4"])
    parser.add_argument("--seconds", type=float, default=330.0, help="for all runs together")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "runs/benchmarks/training_gpu")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs/benchmarks/training_step")
    parser.add_argument("--profile", action="store_true", help="tell the kernels of two updates instead of rates")
    parser.add_argument("--rehearse", action="store_true", help="a two-layer model on the CPU: shows only that it runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
