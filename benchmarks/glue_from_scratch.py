"""How many samples a second does GLUE from scratch train: DistilBERT, BERT-base and BERT-large, beside transformers?

    python -m benchmarks.glue_from_scratch [--data_dir GLUE] [--task mrpc] [--updates 6] [--batch_size 8] [--rounds 1]

As the Azure example trains it: random weights, a shipped model configuration, `run_glue.py`.  Sides take turns: `ours`
is `run_glue.py` as a program, `huggingface` is `Trainer` with the same shape, dynamic padding, batch, length and
dropouts (hidden 0.1, attention 0).  Rates are of the updates after the first; a sample is a text or a pair of texts on
both sides.  A GPU is used where there is one, with the precision that --precision says, on both sides.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.process_tree import REPOSITORY
from bert_pytorch.models.config import load_model_config
from bert_pytorch.tasks.glue.layouts import LAYOUTS
from bert_pytorch.tasks.glue.reading import read_part
from tests.support.data import shared_data

MODELS = ("distilbert_base", "bert_base_uncased", "bert_large_uncased")
LENGTH = 128


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, default=None)
    parser.add_argument("--vocab_file", type=Path, default=None)
    parser.add_argument("--task", choices=sorted(set(LAYOUTS) - {"sts-b"}), default="mrpc")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--side", choices=["huggingface"], default=None, help=argparse.SUPPRESS)
    parser.add_argument("--model", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data_dir = options.data_dir or shared_data("glue")
    options.vocab_file = options.vocab_file or shared_data("vocab", "bert-base-uncased-vocab.txt")
    if options.side:
        print(json.dumps(huggingface_rates(options)))
        return
    table: dict[str, Any] = {}
    for model in options.models:
        rates: dict[str, list[float]] = {"ours": [], "huggingface": []}
        for round_number in range(options.rounds):
            for side in sorted(rates, reverse=round_number % 2 == 0):
                rates[side].append(our_rate(options, model) if side == "ours" else their_rate(options, model))
        ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates["huggingface"], strict=True)]
        table[model] = {
            "samples_per_second": round(statistics.median(rates["ours"]), 3),
            "huggingface_samples_per_second": round(statistics.median(rates["huggingface"]), 3),
            "ratio": round(statistics.median(ratios), 2),
        }
        print(f"{model:22}", *(f"{value:10.3f}" for value in table[model].values()))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    about = {"task": options.task, "batch_size": options.batch_size, "updates": options.updates, "device": device}
    print(json.dumps({"benchmark": "glue_from_scratch", **about, "models": table}))


def our_rate(options: argparse.Namespace, model: str) -> float:
    """Train with `run_glue.py`; return samples a second of the updates after the first."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(REPOSITORY / "run_glue.py"), "--task_name", options.task, "--data_dir",
            str(options.data_dir), "--model_config_file", model, "--vocab_file", str(options.vocab_file), "--do_train",
            "--train_batch_size", str(options.batch_size), "--max_steps", str(options.updates), "--max_seq_length",
            str(LENGTH), "--precision", options.precision, "--skip_checkpoint", "--output_dir", f"{folder}/run",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=REPOSITORY)
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    seconds = [row["step_seconds"] for row in rows if row["event"] == "train"][1:]
    return options.batch_size * len(seconds) / sum(seconds)


def their_rate(options: argparse.Namespace, model: str) -> float:
    """Train with `Trainer` in a process of its own; return the same."""
    words = [
        f"--{name}={getattr(options, name)}" for name in ("data_dir", "vocab_file", "task", "updates", "batch_size")
    ]
    command = [sys.executable, "-m", "benchmarks.glue_from_scratch", "--side=huggingface", f"--model={model}", *words]
    command.append(f"--precision={options.precision}")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    return float(json.loads(done.stdout.splitlines()[-1])["samples_per_second"])


def huggingface_rates(options: argparse.Namespace) -> dict[str, float]:
    """Train with `Trainer` here."""
    import transformers

    layout, shape = LAYOUTS[options.task], load_model_config(options.model)
    examples = read_part(options.data_dir / layout.folder / "train.tsv", layout, labelled=True)
    count = options.updates * options.batch_size
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(options.vocab_file))
    second = None if examples.second is None else examples.second[:count]
    encoded = tokenizer(examples.first[:count], second, truncation=True, max_length=LENGTH)
    assert examples.labels is not None
    numbers = [layout.labels.index(label) for label in examples.labels[:count]]
    distil = shape.model_type == "distilbert"
    names = ["input_ids", "attention_mask", *([] if distil else ["token_type_ids"])]
    data = [
        {name: encoded[name][index] for name in names} | {"labels": numbers[index]} for index in range(len(numbers))
    ]
    model = transformers.AutoModelForSequenceClassification.from_config(their_shape(shape, len(layout.labels)))
    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    gpu = torch.cuda.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=options.batch_size, max_steps=options.updates,
        save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=10**6, use_cpu=not gpu,
        bf16=gpu and options.precision in ("auto", "bf16"), fp16=gpu and options.precision == "fp16",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model, arguments, train_dataset=data, data_collator=transformers.DataCollatorWithPadding(tokenizer),
        callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return {"samples_per_second": options.batch_size * (len(times) - 1) / (times[-1] - times[0])}


def their_shape(shape: Any, labels: int) -> Any:
    """Return the configuration of the same shape in transformers."""
    import transformers

    if shape.model_type == "distilbert":
        return transformers.DistilBertConfig(
            vocab_size=shape.vocab_size, dim=shape.hidden_size, n_layers=shape.num_hidden_layers,
            n_heads=shape.num_attention_heads, hidden_dim=shape.intermediate_size, attention_dropout=0.0,
            seq_classif_dropout=0.1, num_labels=labels,
        )  # fmt: skip
    return transformers.BertConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads, intermediate_size=shape.intermediate_size,
        attention_probs_dropout_prob=0.0, num_labels=labels,
    )  # fmt: skip


if __name__ == "__main__":
    main()
