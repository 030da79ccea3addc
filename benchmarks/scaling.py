"""How does training scale over ranks?  Measured with 1 and 2 here, extrapolated by a stated model to 1,024 devices.

    python -m benchmarks.scaling [--rounds 5] [--updates 12] [--model bert_mini_uncased] [--batch 32] [--work DIR]

Runs are run_pretraining.py under torchrun as shipped, one thread a rank, on the sets of `benchmarks.training_data`: one
rank; two with a batch each (weak scaling, what BERT at a University's table shows); two that share one rank's batch
(strong scaling); two runs of one rank at once, which have nothing to say to each other: what the machine itself lets
two ranks do.  Runs of a round follow each other, ratios are of one round, medians are reported.  Speed-up is the ratio
of sequences a second to one rank's, expansion that a rank, as in HetSeq's table (Ding et al., IAAI 2021).

`launch check` measures the latency and bandwidth of this machine's loopback; `benchmarks.communication` says the model.
Two projections: these CPU ranks, as if further ones were further machines with links like the loopback, and
BERT-large's first phase (65,536 sequences of 128 an update) on H200s at the rate of one, over documented networks.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.communication import (
    GRADIENT_BYTES,
    NETWORKS,
    Network,
    Projected,
    all_reduce_seconds,
    measured_network,
    project,
    update_seconds,
)
from benchmarks.process_tree import REPOSITORY
from benchmarks.training_data import prepare
from bert_pytorch.models.config import load_model_config
from bert_pytorch.models.size import num_parameters

DEVICES = (4, 8, 64, 1024)
WARM_UP_UPDATES = 2
LARGE, LARGE_BATCH, LARGE_MICRO, LARGE_RATE, LAMB_SECONDS = "bert_large_uncased", 65_536, 512, 1992.0, 3.7e-3
"""NVIDIA's first phase; rate and LAMB's time on one H200: H1 and H8 in benchmarks/results/2026-11-26_gpu.md."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Kind(NamedTuple):
    """One way to run."""

    name: str
    ranks: int
    batch: int
    """Sequences of an update over all ranks."""
    runs: int = 1
    """Runs of so many ranks and such a batch at once."""


class Measured(NamedTuple):
    """A run's updates after the first ones."""

    seconds: float
    """Median of an update, mean over runs at once."""
    sequences_per_second: float
    """Of all runs at once."""


def main() -> None:
    """Print the tables and one JSON line."""
    options = _options()
    found = measure(options) if options.rounds else {}
    large = projections(
        NETWORKS,
        hides=True,
        weak=False,
        sequence=1 / LARGE_RATE,
        batch=LARGE_BATCH,
        micro_batch=LARGE_MICRO,
        fixed=LAMB_SECONDS,
        num_bytes=gradient_bytes(LARGE),
    )
    print("\n".join([f"BERT-large, {LARGE_BATCH:,} sequences of 128 an update, H200s:", *projected_table(large), ""]))
    print(json.dumps({"benchmark": "scaling", "model": options.model, "load": round(os.getloadavg()[0], 1), **found}))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train with one rank and two, and say what the model makes of it."""
    data = prepare(options.work)[128]
    batch = options.batch
    kinds = (
        Kind("one rank", 1, batch),
        Kind("two, a batch each", 2, 2 * batch),
        Kind("two, one batch shared", 2, batch),
        Kind("two runs at once", 1, batch, runs=2),
    )
    rounds: list[dict[str, Measured]] = []
    for number in range(options.rounds):
        order = kinds if number % 2 == 0 else kinds[::-1]
        rounds.append({kind.name: train(kind, options, data.folder) for kind in order})
        rates = ", ".join(f"{kind.name} {rounds[-1][kind.name].seconds:.3f} s" for kind in kinds)
        print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}: an update of {rates}", flush=True)
    rows = [figures(kind, kinds[0], rounds) for kind in kinds]
    print("\n".join(["", *measured_table(rows), ""]))
    network, num_bytes = loopback(), gradient_bytes(options.model)
    one, communication = rows[0]["seconds"], all_reduce_seconds(num_bytes, 2, network)
    # Two ranks of one machine share its memory and caches: what they take at once is measured, not modelled.
    predicted = update_seconds(rows[3]["seconds"], communication, 0.0, hides=False)
    print(f"all-reduce of {num_bytes / 1e6:.1f} MB between two ranks, by the model: {communication:.3f} s")
    print(
        f"two ranks, a batch each: two runs at once and the model's all-reduce {predicted:.3f} s an update, "
        f"measured {rows[1]['seconds']:.3f} s"
    )
    here = projections(
        [network], hides=False, sequence=one / batch, batch=batch, micro_batch=batch, fixed=0.0, num_bytes=num_bytes
    )
    print("\n".join(["", f"{options.model}, {batch} sequences a rank, CPU ranks:", *projected_table(here), ""]))
    return {"rows": rows, "network": network._asdict(), "predicted_seconds": round(predicted, 4)}


def gradient_bytes(model: str) -> float:
    """Return the size of a shipped model's gradients."""
    return float(GRADIENT_BYTES * num_parameters(load_model_config(model)))


def train(kind: Kind, options: argparse.Namespace, folder: Path) -> Measured:
    """Train some updates and return what they took; the first ones warm up."""
    with ThreadPoolExecutor(kind.runs) as pool:
        seconds = list(pool.map(lambda _: update_of_a_run(kind, options, folder), range(kind.runs)))
    return Measured(statistics.mean(seconds), sum(kind.batch / each for each in seconds))


def update_of_a_run(kind: Kind, options: argparse.Namespace, folder: Path) -> float:
    """Train in a process of its own and return the median of an update's seconds."""
    updates = WARM_UP_UPDATES + options.updates
    with tempfile.TemporaryDirectory() as run:
        words = [
            *torchrun(kind.ranks), str(REPOSITORY / "run_pretraining.py"), "--input_dir", str(folder.resolve()),
            "--model_config_file", options.model, "--optimizer", "adamw", "--learning_rate", "1e-4",
            "--global_batch_size", str(kind.batch), "--local_batch_size", str(options.batch), "--device", "cpu",
            "--max_steps", "1000000", "--steps", str(updates), "--skip_checkpoint", "--disable_progress_bar",
            "--output_dir", run,
        ]  # fmt: skip
        _run(words)
        lines = (Path(run) / "metrics.jsonl").read_text().splitlines()
    rows = [row for line in lines if (row := json.loads(line))["event"] == "train"][WARM_UP_UPDATES:]
    return statistics.median(row["step_seconds"] for row in rows)


def loopback() -> Network:
    """Measure this machine's loopback with two ranks of `launch check`."""
    words = [*torchrun(2), str(REPOSITORY / "scripts/launch/check.py"), "--device", "cpu", "--as_json"]
    found = json.loads(_run([*words, "--largest_mib", "64"]).splitlines()[-1])["messages"]
    bandwidth = max(message["bus_bandwidth"] for message in found)
    return measured_network("this machine's loopback", "measured", found[0]["seconds"], bandwidth, 2)


def figures(kind: Kind, base: Kind, rounds: Sequence[dict[str, Measured]]) -> dict[str, Any]:
    """Return the medians of one kind; ratios are of one round each."""
    ratios = [each[kind.name].sequences_per_second / each[base.name].sequences_per_second for each in rounds]
    seconds = statistics.median(each[kind.name].seconds for each in rounds)
    speed_up, ranks = statistics.median(ratios), kind.runs * kind.ranks
    return {
        "kind": kind.name, "ranks": ranks, "batch": kind.runs * kind.batch, "seconds": round(seconds, 4),
        "sequences_per_second": round(statistics.median(each[kind.name].sequences_per_second for each in rounds), 1),
        "speed_up": round(speed_up, 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3),
        "expansion": round(speed_up / ranks, 3),
    }  # fmt: skip


def measured_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a table of what was measured, in Markdown."""
    yield "| | ranks | batch | s/update | updates/s | sequences/s | speed-up (least to most) | expansion |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['kind']} | {row['ranks']} | {row['batch']} | {row['seconds']:.3f} | {1 / row['seconds']:.3f} | "
            f"{row['sequences_per_second']:.1f} | {row['speed_up']:.2f} ({row['least']:.2f} to {row['most']:.2f}) | "
            f"{row['expansion']:.2f} |"
        )


def projections(
    networks: Sequence[Network], *, hides: bool, weak: bool = True, **work: Any
) -> list[tuple[str, str, Projected]]:
    """Project every network, with a batch for each device (unless `weak` is off) and with one shared."""
    return [
        (network.name, "a batch each" if grows else "one batch shared", each)
        for network in networks
        for grows in ((True, False) if weak else (False,))
        for each in (project(grows=grows, devices=devices, network=network, hides=hides, **work) for devices in DEVICES)
    ]


def projected_table(rows: Sequence[tuple[str, str, Projected]]) -> Iterator[str]:
    """Yield a table of projections, in Markdown."""
    yield "| network | scaling | devices | s/update | of it all-reduce | speed-up | expansion |"
    yield "|---|---|---|---|---|---|---|"
    for name, scaling, each in rows:
        yield (
            f"| {name} | {scaling} | {each.devices:,} | {each.seconds:.3g} | {each.communication:.3g} | "
            f"{each.speed_up:,.4g} | {each.expansion:.2f} |"
        )


def torchrun(ranks: int) -> list[str]:
    """Return the words that start ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]


def _run(words: Sequence[str]) -> str:
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words[:8])} …: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="0: only the projection for H200s, which needs none")
    parser.add_argument("--updates", type=int, default=12, help=f"of each run, after {WARM_UP_UPDATES} to warm up")
    parser.add_argument("--model", default="bert_mini_uncased")
    parser.add_argument("--batch", type=int, default=32, help="sequences of one rank's update")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs/benchmarks/training_step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
