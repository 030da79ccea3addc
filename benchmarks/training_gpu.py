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
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.process_tree import REPOSITORY
from benchmarks.training_data import prepare_slice
from benchmarks.training_gpu_runs import RUNS, Run, rehearsed, time_for
from benchmarks.training_gpu_ways import compare, measure, profile


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
