"""The ways of `benchmarks.training_gpu`: train one run, profile it, or train it beside Hugging Face's in turns."""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from benchmarks.process_tree import REPOSITORY
from benchmarks.training_gpu_runs import Run, Update, choices_told, figures, is_steady
from benchmarks.training_sides import Command, Side, Step, Turn, ours, peer
from benchmarks.training_step import ratio, run_words
from bert_pytorch.runtime.peak import known_peak_flops

PEER = "huggingface_tuned"
ROUND_SECONDS = 3.0
MOST_ROUNDS = 5
PROFILE_SKIPS, PROFILED_UPDATES, PROFILED_KERNELS = 6, 2, 45
SHARE_OF_STARTS = 0.6
"""Of the time of H4, at most; the rest is for rounds."""
ROWS_OF_H4 = 37
"""Rows of 512 tokens that take H4's 64 sequences of 256 tokens on average: in 99 of 100 updates no more are needed."""
WARM_UP_UPDATES = 12
"""Of each side of H4: torch.compile meets new lengths in the first ones."""


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
