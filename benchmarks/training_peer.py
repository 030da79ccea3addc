"""The peer: Hugging Face's `Trainer` on `BertForPreTraining`, a line for each update in a file.

    python -m benchmarks.training_peer --input_dir SET --model bert_mini_uncased --batch_size 32 --output_dir DIR

Everything that is not named here is `TrainingArguments`' default: AdamW, clipping at 1, gradients and weights in fp32,
data made in the training process.  Batches are padded to their longest sequence by transformers' own collator, which
masks 15 %.  Samples come in the order in which run_pretraining.py draws them; with --grouped, batches of similar
lengths are drawn by transformers' sampler instead.  --tuned adds what transformers has for speed: bf16, sdpa,
torch.compile, fused AdamW, batches made in a process of their own.  Its Trainer looks at every loss for NaN, so that
the device has done an update when it is noted.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    BertConfig,
    BertForPreTraining,
    BertTokenizerFast,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.training_data import order_of_samples
from bert_pytorch.data.config import DataConfig
from bert_pytorch.data.opening import open_corpora
from bert_pytorch.models.config import load_model_config, to_huggingface
from bert_pytorch.models.flops import BatchWork, training_flops
from bert_pytorch.records import IGNORED_LABEL


class Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of a set as a tokenizer returns them, in a given order."""

    def __init__(self, folder: Path, order: np.ndarray) -> None:
        corpora = open_corpora((str(folder),), "train", DataConfig(), None, lowercase=True)
        assert corpora.vocabulary is not None
        self._rows = corpora.sources[0].rows(order)
        self._special = np.isin(self._rows.input_ids, corpora.vocabulary.structural_ids)

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row without padding."""
        rows = self._rows
        size, start = int(rows.lengths[index]), int(rows.segment_b_starts[index])
        assert rows.next_sentence_labels is not None
        return {
            "input_ids": rows.input_ids[index, :size].tolist(),
            "token_type_ids": [0] * start + [1] * (size - start),
            "special_tokens_mask": self._special[index, :size].astype(int).tolist(),
            "next_sentence_label": int(rows.next_sentence_labels[index]),
        }


class CountingCollator:
    """transformers' collator, which notes the work of each batch on the way."""

    def __init__(self, tokenizer: BertTokenizerFast) -> None:
        self._collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
        self.made: multiprocessing.SimpleQueue[BatchWork] = multiprocessing.SimpleQueue()
        """In the order of the batches, as long as one process makes them."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Mask and pad."""
        batch: dict[str, torch.Tensor] = self._collate(features)
        lengths = batch["attention_mask"].sum(1).numpy()
        self.made.put(BatchWork(lengths, int((batch["labels"] != IGNORED_LABEL).sum())))
        return batch


class StepLog(TrainerCallback):
    """A line of JSON for each update: real tokens, FLOPs by the formula, seconds since the one before."""

    def __init__(self, path: Path, collator: CountingCollator, config: Any) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._collator = collator
        self._config = config
        self._ended = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Write the line."""
        work, now = self._collator.made.get(), time.perf_counter()
        row = {
            "tokens": int(work.lengths.sum()),
            "flops": training_flops(self._config, work),
            "seconds": now - self._ended,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self._ended = now


def main() -> None:
    """Train until stopped."""
    parser = argparse.ArgumentParser(description="Hugging Face's Trainer, for benchmarks.training_step.")
    parser.add_argument("--input_dir", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grouped", action="store_true")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    config = load_model_config(options.model)
    tokenizer = BertTokenizerFast(str(options.input_dir / "vocab.txt"))
    settings = to_huggingface(config.model_copy(update={"vocab_size": len(tokenizer)}), len(tokenizer), 0)
    torch.manual_seed(options.seed)
    model = BertForPreTraining(BertConfig.from_dict(settings))
    if options.tuned:
        model.set_attn_implementation("sdpa")
    collator = CountingCollator(tokenizer)
    samples = Samples(options.input_dir, order_of_samples(options.input_dir, options.batch_size, seed=options.seed))
    arguments = TrainingArguments(
        output_dir=str(options.output_dir),
        per_device_train_batch_size=options.batch_size,
        train_sampling_strategy="group_by_length" if options.grouped else "sequential",
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        num_train_epochs=1000,
        seed=options.seed,
        remove_unused_columns=False,
        use_cpu=options.device == "cpu",
        bf16=options.tuned and options.device == "cuda",
        torch_compile=options.tuned,
        dataloader_num_workers=int(options.tuned),
        dataloader_persistent_workers=options.tuned,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    log = StepLog(options.output_dir / "steps.jsonl", collator, config)
    Trainer(model, arguments, data_collator=collator, train_dataset=samples, callbacks=[log]).train()


if __name__ == "__main__":
    main()
