"""The peer of benchmarks.finetuning: Hugging Face's `Trainer`, given the words of one of the programs here.

    python -m benchmarks.finetuning_peer glue --task_name rte --data_dir GLUE --init_checkpoint MODEL \
        --do_train --do_eval --max_steps 80 --eval_interval 20 --output_dir DIR

Sequences and their labels are those that the program makes (tests hold them equal to what transformers' tokenizer
makes), scores are turned into metrics by its task.  Everything between is transformers': the `Auto…` model, its
collator, which pads a batch to its longest sequence, random batches by its sampler, AdamW as `Trainer` builds it.  The
learning rate of each update is the program's.  Rows go to metrics.jsonl in the form that the programs write;
evaluations, in batches of similar lengths so that the benchmark does not wait for padding, are no part of any time.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.finetuning import glue, ner, squad
from bert_pytorch.finetuning.beginning import read_beginning
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.session import TaskKind
from bert_pytorch.models.tasks import Task as Head
from bert_pytorch.optim.schedules import learning_rate_factor
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.task import TRAIN, Task
from bert_pytorch.tokenization.tokenizer import tokenizer_from_vocabulary

PROGRAMS: dict[str, tuple[type[FinetuningConfig], TaskKind]] = {
    "squad": (squad.SquadRunConfig, squad.KIND),
    "ner": (ner.NerRunConfig, ner.KIND),
    "glue": (glue.GlueRunConfig, glue.KIND),
}
MODELS: dict[Head, Any] = {
    "sequence_classification": AutoModelForSequenceClassification,
    "token_classification": AutoModelForTokenClassification,
    "question_answering": AutoModelForQuestionAnswering,
}
Sample = dict[str, Any]
Collator = Callable[[list[Sample]], dict[str, torch.Tensor]]


class Rows:
    """metrics.jsonl."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, event: str, **values: object) -> None:
        """Write a row and let it be seen."""
        print(json.dumps({"event": event, **values}), file=self._file, flush=True)


class SameRates(Trainer):
    """`Trainer` with the learning rates of the programs here, that remembers the loss of its last update."""

    def __init__(self, config: FinetuningConfig, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._config = config
        self.loss = 0.0

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Schedule as `optim.schedules` does, which counts updates from 1."""

        def factor(done: int) -> float:
            number = min(done + 1, num_training_steps)
            return learning_rate_factor(number, max_steps=num_training_steps, config=self._config)

        chosen = optimizer or self.optimizer
        assert chosen is not None
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(chosen, factor)
        return self.lr_scheduler

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """Do it, and keep the loss."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self.loss = loss.item()
        return loss


class Watch(TrainerCallback):
    """A row for each update, and one for each evaluation, whose time does not count."""

    def __init__(self, rows: Rows, interval: int, evaluate: Callable[[], dict[str, float]]) -> None:
        self.trainer: SameRates | None = None
        self._rows = rows
        self._interval = interval
        self._evaluate = evaluate
        self._since = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the first update's time."""
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write what is known; evaluate every so many updates, and after the last."""
        assert self.trainer is not None
        seconds, step = time.perf_counter() - self._since, state.global_step
        self._rows.write("train", step=step, loss=self.trainer.loss, step_seconds=seconds)
        if step % self._interval == 0 or step == state.max_steps:
            self._rows.write("eval", step=step, **self._evaluate())
        self._since = time.perf_counter()


def main() -> None:
    """Train to the end."""
    program, *words = sys.argv[1:]
    settings, kind = PROGRAMS[program]
    config = parse_settings(settings, words, program=program, description=__doc__ or "").settings
    if config.max_steps is None or not config.eval_interval:
        raise SystemExit("error: give --max_steps and --eval_interval.")
    tokenizer = tokenizer_from_vocabulary(read_beginning(config, kind.head, None).vocabulary)
    task = kind.build(config, tokenizer, None)
    config.folder().mkdir(parents=True, exist_ok=True)
    train(config, task)


def train(config: FinetuningConfig, task: Task) -> None:
    """Train and evaluate as `config` says."""
    torch.manual_seed(config.seed)  # of the head
    model = build_model(config, task)
    theirs = AutoTokenizer.from_pretrained(config.init_checkpoint)
    collators = {"token_classification": DataCollatorForTokenClassification}
    collate = collators.get(task.head, DataCollatorWithPadding)(theirs)
    part = task.eval_parts[0]
    held_out = task.features(part)
    asked = samples_of(held_out, None)
    padded = DataCollatorWithPadding(theirs)

    def evaluate() -> dict[str, float]:
        return task.metrics(part, held_out, scores_of(model, asked, padded, config.predict_batch_size))

    watch = Watch(Rows(config.folder() / "metrics.jsonl"), config.eval_interval, evaluate)
    watch.trainer = SameRates(
        config,
        model=model,
        args=arguments_of(config),
        data_collator=collate,
        train_dataset=samples_of(task.features(TRAIN), task.head),
        callbacks=[watch],
    )
    watch.trainer.train()


def build_model(config: FinetuningConfig, task: Task) -> PreTrainedModel:
    """Open the checkpoint with the task's head, which begins at random where the checkpoint has none."""
    changes: dict[str, Any] = {"attention_probs_dropout_prob": config.attention_dropout}
    if config.hidden_dropout is not None:
        changes["hidden_dropout_prob"] = config.hidden_dropout
    if task.label_names:
        changes["num_labels"] = len(task.label_names)
    return MODELS[task.head].from_pretrained(config.init_checkpoint, **changes)


def arguments_of(config: FinetuningConfig) -> TrainingArguments:
    """Return `Trainer`'s settings: what is not named is its default."""
    assert config.max_steps is not None
    return TrainingArguments(
        output_dir=str(config.folder() / "trainer"),
        per_device_train_batch_size=config.train_batch_size,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_epsilon=config.adam_epsilon,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        use_cpu=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def samples_of(features: Features, head: Head | None) -> list[Sample]:
    """Return sequences as a tokenizer returns them, with labels of a head's kind; None: without."""
    samples = []
    for number, (start, end) in enumerate(zip(features.cu_seqlens[:-1], features.cu_seqlens[1:], strict=True)):
        size, second = int(end - start), int(features.segment_b_starts[number])
        samples.append(
            {
                "input_ids": features.input_ids[start:end].tolist(),
                "token_type_ids": [0] * second + [1] * (size - second),
                "attention_mask": [1] * size,
            }
        )
        if head is None:
            continue
        assert features.labels is not None
        if head == "token_classification":
            samples[-1]["labels"] = features.labels[start:end].tolist()
        elif head == "question_answering":
            samples[-1] |= dict(
                zip(("start_positions", "end_positions"), features.labels[number].tolist(), strict=True)
            )
        else:
            samples[-1]["labels"] = features.labels[number].item()
    return samples


def scores_of(model: PreTrainedModel, samples: list[Sample], collate: Collator, batch_size: int) -> list[np.ndarray]:
    """Return what a task makes metrics of: the logits of each sequence, in order, without those of padding."""
    scores: dict[int, np.ndarray] = {}
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for numbers in _of_similar_lengths(samples, batch_size):
            output = model(**collate([samples[number] for number in numbers]))
            logits = torch.stack((output.start_logits, output.end_logits), -1) if "start_logits" in output else (
                output.logits
            )  # fmt: skip
            for number, row in zip(numbers, logits.numpy(), strict=True):
                scores[number] = row if row.ndim == 1 else row[: len(samples[number]["input_ids"])]
    model.train(was_training)
    return [scores[number] for number in range(len(samples))]


def _of_similar_lengths(samples: list[Sample], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(samples)), key=lambda number: len(samples[number]["input_ids"]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


if __name__ == "__main__":
    main()
