"""What does it cost, and save, that idle OpenMP threads sleep?  Both policies, with and without a busy neighbour.

    python -m benchmarks.wait_policy --input_dir DIR [--pairs 5] [--updates 40]

DIR holds shards (the quickstart's do: runs/quickstart/corpus/encoded/sequences_…_64_…).  Each run is the shipped entry
point with the quickstart's configuration; pairs are interleaved, ratios are of one pair, and the median is reported.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BUSY = [sys.executable, "-c", "while True: pass"]


def tokens_per_second(policy: str, input_dir: Path, updates: int) -> float:
    """Train a few updates and return the rate that the run reports."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "run_pretraining.py", "--config_file", "config/pretraining/quickstart_phase1.json",
            "--input_dir", str(input_dir), "--eval_dir", str(input_dir), "--output_dir", folder,
            "--skip_checkpoint", "--steps", str(updates),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_WAIT_POLICY": policy}
        subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return next(float(row["tokens_per_second"]) for row in rows if row["event"] == "end")


def main() -> None:
    """Print rates of each pair and the medians as one JSON line."""
    parser = argparse.ArgumentParser(description="OpenMP wait policies compared.")
    parser.add_argument("--input_dir", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--updates", type=int, default=40)
    options = parser.parse_args()
    result: dict[str, object] = {"benchmark": "wait_policy", "cores": os.cpu_count()}
    for neighbour in (False, True):
        ratios = []
        for _ in range(options.pairs):
            busy = subprocess.Popen(BUSY) if neighbour else None
            try:
                active = tokens_per_second("ACTIVE", options.input_dir.resolve(), options.updates)
                passive = tokens_per_second("PASSIVE", options.input_dir.resolve(), options.updates)
            finally:
                if busy is not None:
                    busy.kill()
            ratios.append(passive / active)
            print(f"busy neighbour {neighbour}: active {active:,.0f}, passive {passive:,.0f} tokens/s")
        result[f"passive_over_active_{'busy' if neighbour else 'quiet'}"] = round(statistics.median(ratios), 2)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
