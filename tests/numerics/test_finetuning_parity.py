"""Fine-tuning against transformers' BertForSequenceClassification in a hand-written loop: losses, weights, scores."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.support.errors_between import largest_error
from tests.support.finetuning import classify_here, random_texts, small_task_model, write_json_lines
from tests.support.runs import metrics

UPDATES = 8
COUNT = 24
LENGTH = 21
"""Odd, so that pairs have room for an even number: at a tie BERT cuts the second text, transformers the first."""
RATE, DECAY = 2e-3, 0.01


def rows_of(problem: str) -> tuple[list[dict[str, Any]], tuple[str, ...], torch.Tensor]:
    """Return examples, names of classes, and their labels as transformers wants them."""
    texts, pairs = random_texts(COUNT, 1), random_texts(COUNT, 2, longest=9)
    rng = np.random.default_rng(0)
    if problem == "regression":
        values = rng.normal(size=COUNT).astype(np.float32)
        labels: list[Any] = [float(value) for value in values]
        names, wanted = ("label",), torch.from_numpy(values)
    elif problem == "multi_label":
        chosen = rng.random((COUNT, 3)) < 0.4
        names = ("a", "b", "c")
        labels = [[name for name, is_one in zip(names, row, strict=True) if is_one] for row in chosen]
        wanted = torch.from_numpy(chosen).float()
    else:
        classes = rng.integers(0, 3, COUNT)
        names = ("no", "perhaps", "yes")
        labels, wanted = [names[number] for number in classes], torch.from_numpy(classes)
    rows = [
        {"text": text, "other": pair, "label": label} for text, pair, label in zip(texts, pairs, labels, strict=True)
    ]
    return rows, names, wanted


def layer_scale(name: str) -> float:
    """Return 0.7 to the power of the layers (of two) that stand above a parameter, heads being one."""
    if "embeddings" in name:
        return 0.7**3
    found = re.search(r"layer\.(\d)", name)
    return 0.7 ** (2 - int(found[1])) if found else 1.0


@pytest.mark.parametrize("problem", ["single_label", "multi_label", "regression"])
def test_updates_and_scores_equal_those_of_transformers(problem: str, tmp_path: Path) -> None:
    rows, names, wanted = rows_of(problem)
    kind = {"single_label": "single_label_classification", "multi_label": "multi_label_classification"}
    start = small_task_model(tmp_path / "start", labels=names, problem_type=kind.get(problem, problem))
    data = write_json_lines(tmp_path / "data.jsonl", rows)
    outcome = classify_here(
        init_checkpoint=start, do_train=True, do_predict=True, train_file=data, test_file=data, problem=problem,
        text_pair_column="other", output_dir=tmp_path / "run", train_batch_size=COUNT, max_steps=UPDATES,
        max_seq_length=LENGTH, learning_rate=RATE, weight_decay=DECAY, warmup_proportion=0.25, lr_decay="constant",
        max_grad_norm=0.5, max_tokens=128, layer_decay=0.7,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err

    theirs = transformers.BertForSequenceClassification.from_pretrained(start)
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    texts, pairs = [row["text"] for row in rows], [row["other"] for row in rows]
    batch = tokenizer(texts, pairs, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    assert batch["attention_mask"].sum(1).max() == LENGTH  # truncation takes part
    groups = [
        {"params": [parameter], "weight_decay": 0.0 if "bias" in name or "LayerNorm" in name else DECAY}
        for name, parameter in theirs.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, eps=1e-6)
    scales = [layer_scale(name) for name, _ in theirs.named_parameters()]
    losses = []
    for update in range(UPDATES):
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = scale * RATE * min(1, (update + 1) / 2)
        loss = theirs.train()(**batch, labels=wanted).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    found = [row["loss"] for row in metrics(tmp_path / "run", "train")]
    assert found == pytest.approx(losses, rel=2e-5)
    ours = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "run" / "model")
    assert ours.config.id2label == dict(enumerate(names))
    assert ours.config.problem_type == theirs.config.problem_type
    moved = dict(theirs.named_parameters())
    assert largest_error(dict(ours.named_parameters()), moved) < 2e-3  # Adam's first steps amplify the last bits
    with torch.inference_mode():
        scores = ours.eval()(**batch).logits
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    if problem == "regression":
        assert [line["value"] for line in lines] == pytest.approx(scores[:, 0].tolist(), abs=1e-5)
    else:
        chances = scores.sigmoid() if problem == "multi_label" else scores.softmax(-1)
        predicted = torch.tensor([[line["probabilities"][name] for name in names] for line in lines])
        assert torch.allclose(predicted, chances, atol=1e-5)
