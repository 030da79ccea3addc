"""How fast is training here, beside Hugging Face's `Trainer` and beside what the processor can do (C1 to C5)?

    python -m benchmarks.training_step [--rows C1 C2 C3 base512 C5] [--pairs 5] [--seconds 6]
    python -m benchmarks.training_step --rows C1 --sides ours also --ours ../mine --also ../main --pairs 9 --seconds 4
    python -m benchmarks.training_step --rows C1 --sides ours also --also_flags="--attention reference"
    python -m benchmarks.training_step --rows C1 C3 --profile

Sides: `ours` is run_pretraining.py of a checkout (--ours, this one by default), `also` the same of another checkout or
with other flags, `huggingface` is `Trainer` with `BertForPreTraining`, dynamic padding and the same batches in the same
order, `huggingface_grouped` the same with its batches of similar lengths, the longest first.  Each is a process of its
own that is started once and stopped while it is not its turn; a round is one turn of each, in alternating order, and a
measurement of matrix products at the model's own shapes.  All sides have hidden dropout 0.1, attention dropout 0 and
AdamW.

Rates are real (non-padding) tokens a second of wall clock, data included; warm-up is apart.  `useful` is model FLOPs
(bert_pytorch/models/flops.py) a second over the matrix products' rate of the same round.  Ratios are of one round, the
first side's over another's; told are median, least and most.  `cpu_ratios` are of tokens a second of processor time: on
a busy machine they are steadier, but do not see idle cores.  Memory is the most resident of each process.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from bert_pytorch.runtime.openmp import let_idle_threads_sleep

let_idle_threads_sleep()  # here and, by inheritance, on all sides: a busy neighbour costs each alike

import torch  # noqa: E402 OpenMP reads its environment when torch is imported

from benchmarks.process_tree import REPOSITORY  # noqa: E402
from benchmarks.training_data import TrainingSet, prepare, updates  # noqa: E402
from benchmarks.training_sides import Command, Side, Step, Turn, ours, peer  # noqa: E402
from bert_pytorch.models.config import ModelConfig, load_model_config  # noqa: E402
from bert_pytorch.models.flops import BatchWork, linear_products, training_flops  # noqa: E402
from bert_pytorch.runtime.peak import measured_flops  # noqa: E402

SEED = 1
PROFILED_UPDATES = 5
PROFILED_OPERATORS = 25
SIDES = ("ours", "also", "huggingface", "huggingface_grouped")


class Row(NamedTuple):
    """What is trained in one row."""

    model: str
    length: int
    batch_size: int
    about: str
    memory_only: bool = False
    """One round without the grouped side: its question is memory."""


ROWS = {
    "C1": Row("bert_mini_uncased", 128, 32, "L4 H256, s128, 72 % fill"),
    "C2": Row("bert_mini_uncased", 512, 8, "L4 H256, Wikipedia-like lengths at s512"),
    "C3": Row("bert_base_uncased", 128, 8, "BERT-base, s128, 72 % fill"),
    "base512": Row("bert_base_uncased", 512, 4, "BERT-base, Wikipedia-like lengths at s512"),
    "C5": Row("bert_mini_uncased", 128, 64, "L4 H256, batch 64 of 128: memory", memory_only=True),
}


class Round(NamedTuple):
    """One turn of each side."""

    turns: dict[str, Turn]
    gemm_flops: float
    """FLOP/s of matrix products at the model's shapes."""


def main() -> None:
    """Print a table and one JSON line a row."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no stopped side is left behind
    sets = prepare(options.work)
    for name in options.rows:
        row = ROWS[name]
        data = sets[row.length]
        result = (profile if options.profile else measure)(name, row, data, options)
        print(json.dumps(result, ensure_ascii=False), flush=True)


def measure(name: str, row: Row, data: TrainingSet, options: argparse.Namespace) -> dict[str, object]:
    """Take all turns of a row and sum them up."""
    config = load_model_config(row.model)
    names = [side for side in options.sides if not (row.memory_only and side == "huggingface_grouped")]
    with contextlib.ExitStack() as stack:
        sides = []
        for side in names:
            folder = options.work / "sides" / side
            folder.mkdir(parents=True, exist_ok=True)
            command = _command(side, row, data, folder / "run", options)
            sides.append(stack.enter_context(Side(side, command, folder / "log.txt")))
            sides[-1].warm_up(options.warm_up)
            print(f"{name} {side}: first update after {sides[-1].start_seconds:.1f} s", flush=True)
        rounds = []
        for number in range(1 if row.memory_only else options.pairs):
            order = sides if number % 2 == 0 else sides[::-1]  # so that no side always follows the same one
            turns = {side.name: side.take_turn(options.seconds, options.updates) for side in order}
            rounds.append(Round(turns, gemm_rate(config, row, data)))
            print(f"{name} round {number + 1}: {_told(rounds[-1], names)}", flush=True)
        figures = {side.name: _figures(side, rounds) for side in sides}
    ratios, cpu_ratios = (
        {f"{names[0]}/{other}": ratio([each.turns for each in rounds], rate, names[0], other) for other in names[1:]}
        for rate in (attrgetter("tokens_per_second"), attrgetter("tokens_per_cpu_second"))
    )
    memory = {
        f"{names[0]}/{other}": round(figures[names[0]]["peak_mib"] / figures[other]["peak_mib"], 3)
        for other in names[1:]
    }
    return {
        "benchmark": "training_step", "id": name, "about": row.about, "batch_size": row.batch_size,
        "mean_length": round(data.mean_length, 1), "rounds": len(rounds), "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1), "sides": figures, "ratios": ratios, "cpu_ratios": cpu_ratios,
        "memory_ratios": memory, "gemm_gflops": _median([each.gemm_flops / 1e9 for each in rounds], 1),
    }  # fmt: skip


def gemm_rate(config: ModelConfig, row: Row, data: TrainingSet) -> float:
    """Measure matrix products as a mean batch has them, in this process."""
    tokens = round(row.batch_size * data.mean_length)
    products = linear_products(config, tokens, round(0.15 * tokens))
    return measured_flops([product.shape for product in products], torch.device("cpu"), torch.float32)


def _command(side: str, row: Row, data: TrainingSet, output_dir: Path, options: argparse.Namespace) -> Command:
    output_dir = output_dir.resolve()
    output_dir.mkdir(exist_ok=True)
    folder = str(data.folder.resolve())
    if side.startswith("huggingface"):
        words = ["--input_dir", folder, "--model", row.model, "--batch_size", str(row.batch_size), "--seed", str(SEED)]
        return peer([*words, "--grouped"] if side == "huggingface_grouped" else words, output_dir)
    checkout, flags = (options.ours, options.ours_flags) if side == "ours" else (options.also, options.also_flags)
    return ours(checkout, [*run_words(row, folder), *shlex.split(flags)], output_dir, _reader(row, data))


def run_words(row: Row, folder: str, *, device: str = "cpu", optimizer: str = "adamw", micro: int = 0) -> list[str]:
    """Return the options of run_pretraining.py; `micro`: sequences of a micro-batch, 0 for the whole batch."""
    return [
        *("--input_dir", folder, "--model_config_file", row.model, "--optimizer", optimizer, "--learning_rate", "1e-4"),
        *("--lr_decay", "constant", "--warmup_proportion", "0", "--max_steps", "1000000", "--seed", str(SEED)),
        *("--global_batch_size", str(row.batch_size), "--local_batch_size", str(micro or row.batch_size)),
        *("--device", device),
    ]


def _reader(row: Row, data: TrainingSet) -> Callable[[dict[str, Any]], Step | None]:
    """Return what makes rows of metrics.jsonl steps; their FLOPs are those of the same updates, drawn here again."""
    config, drawn = load_model_config(row.model), updates(data.folder, row.batch_size, seed=SEED)

    def read(values: dict[str, Any]) -> Step | None:
        if values["event"] != "train":
            return None
        update = next(drawn)
        tokens = round(values["tokens_per_second"] * values["step_seconds"])
        assert tokens == update.num_tokens, "the run draws other samples than this benchmark thinks"
        flops = sum(training_flops(config, BatchWork.of(batch)) for batch in update.micro_batches)
        return Step(values["step_seconds"], tokens, flops)

    return read


def _figures(side: Side, rounds: Sequence[Round]) -> dict[str, Any]:
    turns = [each.turns[side.name] for each in rounds]
    useful = [each.turns[side.name].flops_per_second / each.gemm_flops for each in rounds]
    return {
        "tokens_per_second": _median([turn.tokens_per_second for turn in turns], 1),
        "useful": _median(useful, 3),
        "peak_mib": round(side.peak_mib()),
        "updates": sum(len(turn.steps) for turn in turns),
        "start_seconds": round(side.start_seconds, 1),
    }


def ratio(rounds: Sequence[dict[str, Turn]], rate: Callable[[Turn], float], mine: str, other: str) -> list[float]:
    """Return median, least and most over the rounds."""
    ratios = [rate(turns[mine]) / rate(turns[other]) for turns in rounds]
    return [round(value, 3) for value in (statistics.median(ratios), min(ratios), max(ratios))]


def _median(values: Sequence[float], digits: int) -> float:
    return round(statistics.median(values), digits)


def _told(one: Round, names: Sequence[str]) -> str:
    rates = ", ".join(
        f"{name} {one.turns[name].tokens_per_second:,.0f} tokens/s "
        f"({one.turns[name].flops_per_second / one.gemm_flops:.0%})"
        for name in names
    )
    return f"{rates}; GEMM {one.gemm_flops / 1e9:.0f} GFLOP/s"


def profile(name: str, row: Row, data: TrainingSet, options: argparse.Namespace) -> dict[str, object]:
    """Print where a step of `ours` spends its time, by kind of work and by operator; the profiler slows it a little."""
    folder = options.work / "sides" / "profile"
    output, checkout = folder.resolve() / "profile.json", options.ours.resolve()
    flags = [*run_words(row, str(data.folder.resolve())), *shlex.split(options.ours_flags)]
    program, words = str(REPOSITORY / "benchmarks/training_profile.py"), ours(checkout, flags, folder / "run").words[2:]
    limits = [str(options.warm_up), str(PROFILED_UPDATES)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("wb") as log:
        command = [sys.executable, program, str(checkout), str(output), *limits, *words]
        if subprocess.run(command, cwd=checkout, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
            raise SystemExit(f"error: the profiled run failed; see {folder / 'log.txt'}")
    found = json.loads(output.read_text())
    print(f"{name} ({row.about}): {found['milliseconds']:.0f} ms an update, mean of {PROFILED_UPDATES}, while profiled")
    for group, own in found["groups"].items():
        print(f"  {own:9.1f} ms {own / found['milliseconds']:6.1%}  {group}")
    print("  by operator, without what it calls:")
    for operator, group, own in found["operators"][:PROFILED_OPERATORS]:
        print(f"  {own:9.1f} ms {own / found['milliseconds']:6.1%}  {operator}  [{group}]")
    shares = {group: round(own / found["milliseconds"], 4) for group, own in found["groups"].items()}
    return {
        "benchmark": "training_step", "id": name, "about": row.about, "profile": shares,
        "milliseconds": round(found["milliseconds"], 1), "gemm_gflops_in_step": round(found["gemm_gflops"] or 0, 1),
        "gemm_gflops": round(gemm_rate(load_model_config(row.model), row, data) / 1e9, 1),
    }  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=6.0, help="a turn lasts at least so long")
    parser.add_argument("--updates", type=int, default=2, help="and has at least so many updates")
    parser.add_argument("--warm_up", type=int, default=2, help="updates before the first turn")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=None)
    parser.add_argument("--ours", type=Path, default=REPOSITORY, help="checkout of the side `ours`")
    parser.add_argument("--ours_flags", default="", help="further options of its run_pretraining.py, in one word")
    parser.add_argument("--also", type=Path, default=None, help="checkout of the side `also`")
    parser.add_argument("--also_flags", default="")
    parser.add_argument("--profile", action="store_true", help="say where a step of `ours` spends its time instead")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "runs/benchmarks/training_step")
    options = parser.parse_args()
    with_also = options.also is not None or bool(options.also_flags)
    options.also = options.also or options.ours
    if options.sides is None:
        options.sides = [side for side in SIDES if side != "also" or with_also]
    return options


if __name__ == "__main__":
    main()
