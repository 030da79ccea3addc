"""A large corpus, built whole: does memory stay constant, time proportional, and a killed build end in the same bytes?

    python -m benchmarks.corpus_build --megabytes 1000 --kills 5 [--dask] [--work DIR]

The shared text is repeated and perturbed to the size asked for (`benchmarks.corpus_text`), then formatted, given a
vocabulary and encoded (128 and 512 tokens in one pass) through the shipped commands:

  1. at a quarter of the size and at the whole of it: seconds, peak memory of a worker and of the coordinator;
  2. again, the coordinator killed with SIGKILL at random instants (uniform over the time of the whole build; seed and
     instants are printed) and started anew each time: every file must be equal to the uninterrupted build's;
  3. with --dask, on a Dask cluster of two local workers: equal as well.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.corpus_text import write_corpus
from benchmarks.process_tree import Watched, corpus_command, watch
from tests.support.dask_cluster import dask_cluster

VARYING = {".lock", "build_log.json"}
STAGES = ("format", "vocab", "encode")


def stage_command(stage: str, text: Path, output: Path, more: Sequence[str]) -> list[str]:
    """Return the command of one stage of a build below `output`."""
    formatted, vocab, encoded = output / "formatted", output / "vocab", output / "encoded"
    words: dict[str, list[object]] = {
        "format": ["--input", text, "--output", formatted, *more],
        "vocab": ["--input", formatted, "--output", vocab, "--vocab_size", 30522, "--sample_bytes", 20_000_000],
        "encode": [
            "--input", formatted, "--output", encoded, "--vocab_file", vocab,
            "--max_seq_len", 128, 512, "--short_seq_prob", 0.1, 0, *more,
        ],
    }  # fmt: skip
    return corpus_command(stage, *words[stage])


def build(text: Path, output: Path, more: Sequence[str] = ()) -> dict[str, Watched]:
    """Run all stages without interruption."""
    log = output.with_suffix(".log")
    return {stage: watch(stage_command(stage, text, output, more), log=log) for stage in STAGES}


def build_with_kills(text: Path, output: Path, instants: Sequence[float]) -> int:
    """Run all stages, killing whichever runs at each instant (seconds of work since the start); return kills done."""
    log, left, worked, kills = output.with_suffix(".log"), list(instants), 0.0, 0
    for stage in STAGES:
        while True:
            run = watch(stage_command(stage, text, output, ()), max(0.0, left[0] - worked) if left else None, log)
            worked += run.seconds
            if not run.killed:
                break
            left.pop(0)
            kills += 1
            print(f"  killed {stage} after {worked:.1f} s of work", flush=True)
    return kills


def digest_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that equal builds share, by relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in VARYING]
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def main() -> None:
    """Build, compare, and print one JSON line."""
    parser = argparse.ArgumentParser(description="A large corpus built whole, killed, and on Dask.")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dask", action="store_true")
    parser.add_argument("--work", type=Path, help="folder for text and builds, kept; default: a temporary one")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        result: dict[str, object] = {"benchmark": "corpus_build", "id": "D3", "cores": os.cpu_count()}
        for name, megabytes in (("quarter", options.megabytes // 4), ("whole", options.megabytes)):
            text, output = work / f"text_{name}", work / f"build_{name}"
            size = write_corpus(text, megabytes * 1_000_000, seed=1) / 1e6
            shutil.rmtree(output, ignore_errors=True)
            stages = build(text, output)
            result[name] = {
                "megabytes": round(size),
                **{f"{stage}_seconds": round(run.seconds, 1) for stage, run in stages.items()},
                **{f"{stage}_worker_mib": round(run.worker_mib) for stage, run in stages.items() if run.worker_mib},
                **{f"{stage}_main_mib": round(run.main_mib) for stage, run in stages.items()},
            }
            print(name, json.dumps(result[name]), flush=True)
        seconds = sum(run.seconds for run in stages.values())
        wanted = digest_of(work / "build_whole")
        chance = random.Random(options.seed)
        instants = sorted(chance.uniform(0, seconds) for _ in range(options.kills))
        print(f"seed {options.seed}, kills at {', '.join(f'{instant:.1f}' for instant in instants)} s", flush=True)
        shutil.rmtree(work / "build_killed", ignore_errors=True)
        result["kills"] = build_with_kills(work / "text_whole", work / "build_killed", instants)
        result["killed_build_equal"] = digest_of(work / "build_killed") == wanted
        if options.dask:
            shutil.rmtree(work / "build_dask", ignore_errors=True)
            with dask_cluster(work / "dask", workers=2) as cluster:
                stages = build(work / "text_whole", work / "build_dask", ["--scheduler", str(cluster.scheduler_file)])
            result["dask_seconds"] = round(sum(run.seconds for run in stages.values()), 1)
            result["dask_build_equal"] = digest_of(work / "build_dask") == wanted
        result["files"] = len(wanted)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
