"""How many samples a second do DistilBERT, BERT-base and BERT-large train on, from scratch, on a task of GLUE?

    python -m benchmarks.finetuning_from_scratch [--models distilbert_base bert_base_uncased bert_large_uncased]
        [--task mrpc] [--updates 4] [--batch_size 16] [--device auto]

Each is a run of run_glue.py with --model_config_file and no checkpoint.  The first update is left out: it has warm-up
in it.  A sample is a pair of sentences, real tokens are those of no padding.  Memory is the most of the process on a
CPU, of the allocator on a GPU.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.finetuning_sides import Run, train
from benchmarks.finetuning_tasks import files_of, real_data
from benchmarks.process_tree import REPOSITORY

MODELS = ("distilbert_base", "bert_base_uncased", "bert_large_uncased")


def main() -> None:
    """Print a line and one JSON line for each model."""
    options = _options()
    data = options.data or real_data()
    for model in options.models:
        work = options.work.resolve() / model
        flags = {
            **files_of("glue", data, work), "task_name": options.task, "model_config_file": model, "do_train": True,
            "vocab_file": options.vocab_file or data / "vocab" / "bert-base-uncased-vocab.txt",
            "max_steps": options.updates + 1, "train_batch_size": options.batch_size, "device": options.device,
        }  # fmt: skip
        found = rates(train("ours", "glue", flags, work), options.batch_size)
        print(
            f"{model} on {options.task}: {found['samples_per_second']:,.1f} samples/s, "
            f"{found['tokens_per_second']:,.0f} tokens/s, {found['update_seconds']:.2f} s an update of "
            f"{options.batch_size}, {found['peak_memory_gib']:.1f} GiB",
            flush=True,
        )
        about = {"benchmark": "finetuning_from_scratch", "model": model, "task": options.task}
        print(
            json.dumps({**about, "threads": os.cpu_count(), "load": round(os.getloadavg()[0], 1), **found}), flush=True
        )


def rates(run: Run, batch_size: int) -> dict[str, Any]:
    """Return rates over all updates but the first."""
    counted = run.updates[1:]
    seconds = sum(row["step_seconds"] for row in counted)
    tokens = sum(row["tokens_per_second"] * row["step_seconds"] for row in counted)
    return {
        "updates": len(counted),
        "samples_per_second": round(len(counted) * batch_size / seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "update_seconds": round(seconds / len(counted), 3),
        "peak_memory_gib": round(run.updates[-1]["peak_memory_gib"], 2),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="shipped configurations, or files")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data", type=Path, default=None, help="folder laid out as the shared data")
    parser.add_argument("--vocab_file", type=Path, default=None, help="by default Google's, in that folder")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs/benchmarks/finetuning_from_scratch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
