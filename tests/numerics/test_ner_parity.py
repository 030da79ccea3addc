"""Tagging entities against transformers' BertForTokenClassification in a hand-written loop: losses and predictions."""

from pathlib import Path

import pytest
import torch
import transformers

from bert_pytorch.finetuning import ner
from bert_pytorch.tasks.ner.conll import read_conll
from tests.support.finetuning import small_task_model
from tests.support.runs import metrics, run_here, words

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
UPDATES, RATE = 8, 2e-3
SENTENCES = [
    "the O\nking B-PER\nof I-PER\nfrance I-PER\nis O\nsinging O\n. O\n",
    "paris B-LOC\nrome B-LOC\nthe O\ncapital O\n",
    "kings O\nof O\nparis B-LOC\n",
    "Paris B-LOC\n",
]


def test_updates_and_tags_equal_those_of_transformers(tmp_path: Path) -> None:
    start = small_task_model(tmp_path / "start", "token_classification", LABELS)
    path = tmp_path / "train.conll"
    path.write_text("\n".join(SENTENCES))
    flags = {
        "init_checkpoint": start, "do_train": True, "do_predict": True, "train_file": path, "test_file": path,
        "output_dir": tmp_path / "run", "train_batch_size": len(SENTENCES), "max_steps": UPDATES, "max_seq_length": 40,
        "learning_rate": RATE, "warmup_proportion": 0, "lr_decay": "constant", "weight_decay": 0, "max_tokens": 40,
        "max_grad_norm": 0.5, "skip_cache": True,
    }  # fmt: skip
    outcome = run_here(ner.main, words(flags))
    assert outcome.code == 0, outcome.err

    file = read_conll(path)
    theirs = transformers.BertForTokenClassification.from_pretrained(start)
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    sentences = [list(sentence) for sentence in file.sentences(file.words)]
    batch = tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full(batch["input_ids"].shape, -100)
    places = []
    for row, tags in enumerate(file.sentences(file.tags)):
        whose = batch.word_ids(row)
        for word, tag in enumerate(tags):
            places.append((row, whose.index(word)))
            labels[places[-1]] = LABELS.index(tag)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=RATE, eps=1e-6, weight_decay=0)
    losses = []
    for _ in range(UPDATES):
        loss = theirs.train()(**batch, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    with torch.inference_mode():
        best = theirs.eval()(**batch).logits.argmax(-1)

    assert losses[-1] < losses[0] / 1.2
    assert [row["loss"] for row in metrics(tmp_path / "run", "train")] == pytest.approx(losses, rel=2e-5)
    assert read_conll(tmp_path / "run" / "test_predictions.conll").entities() == _entities(
        [LABELS[best[place]] for place in places], file
    )


def _entities(tags: list[str], file) -> list:
    return file._replace(tags=tuple(tags)).entities()
