"""Fine-tuning on questions against transformers' BertForQuestionAnswering: losses, weights, scores, answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from bert_pytorch.tasks.squad.config import SquadConfig
from bert_pytorch.tasks.squad.task import SquadTask
from bert_pytorch.tokenization.tokenizer import Tokenizer
from tests.support.errors_between import largest_error
from tests.support.finetuning import VOCABULARY, small_task_model
from tests.support.runs import metrics
from tests.support.squad_files import letters, squad_here

UPDATES, WINDOW, STRIDE, QUERY, RATE = 6, 16, 5, 4, 2e-3


def test_updates_scores_and_answers_equal_those_of_transformers(tmp_path: Path) -> None:
    start = small_task_model(tmp_path / "start", "question_answering", ())
    data = letters(tmp_path / "data.json", 6)
    content = json.loads(data.read_text())
    asked = [(p["context"], q) for p in content["data"][0]["paragraphs"] for q in p["qas"]]
    theirs = transformers.BertForQuestionAnswering.from_pretrained(start)
    tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    room = WINDOW - 1 - 3  # every question is one token
    batch = tokenizer(
        [q["question"] for _, q in asked], [context for context, _ in asked], truncation="only_second",
        max_length=WINDOW, stride=room - STRIDE, return_overflowing_tokens=True, padding=True, return_tensors="pt",
    )  # fmt: skip
    owners = batch.pop("overflow_to_sample_mapping").tolist()
    windows = len(owners)
    assert windows > len(asked) + 4
    outcome = squad_here(
        init_checkpoint=start, do_train=True, do_predict=True, do_eval=True, train_file=data, predict_file=data,
        output_dir=tmp_path / "run", train_batch_size=windows, max_steps=UPDATES, max_seq_length=WINDOW,
        doc_stride=STRIDE, max_query_length=QUERY, learning_rate=RATE, warmup_proportion=0, lr_decay="constant",
        weight_decay=0, max_tokens=150, n_best_size=4, keep_best=False,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err

    config = SquadConfig(train_file=(data,), max_seq_length=WINDOW, doc_stride=STRIDE, max_query_length=QUERY)
    ours = SquadTask(config, Tokenizer(VOCABULARY), trains=True, evaluates=False, predicts=False).features("train")
    for row, given in zip(batch["input_ids"], np.split(ours.input_ids, ours.cu_seqlens[1:-1]), strict=True):
        assert row[: len(given)].tolist() == given.tolist()
    assert owners == ours.examples.tolist()
    labels = torch.from_numpy(ours.labels)

    optimizer = torch.optim.AdamW(theirs.parameters(), lr=RATE, eps=1e-6, weight_decay=0)
    losses = []
    for _ in range(UPDATES):
        output = theirs.train()(**batch)
        # Their own loss lets padding compete as well; packed sequences have none.
        ends = [logits.masked_fill(batch["attention_mask"] == 0, -torch.inf) for logits in output.to_tuple()]
        loss = sum(F.cross_entropy(logits, labels[:, end]) for end, logits in enumerate(ends)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert [row["loss"] for row in metrics(tmp_path / "run", "train")] == pytest.approx(losses, rel=2e-5)
    exported = transformers.BertForQuestionAnswering.from_pretrained(tmp_path / "run" / "model")
    assert largest_error(dict(exported.named_parameters()), dict(theirs.named_parameters())) < 2e-3

    with torch.inference_mode():
        output = exported.eval()(**batch)
    n_best = json.loads((tmp_path / "run" / "nbest_predictions.json").read_text())
    for number, (context, question) in enumerate(asked):
        rows = [row for row, owner in enumerate(owners) if owner == number]
        starts = {round(value, 3) for row in rows for value in output.start_logits[row].tolist()}
        found = n_best[question["id"]]
        assert len(found) == 4
        for candidate in found:
            assert candidate["text"] in context
            assert min(abs(candidate["start_logit"] - start) for start in starts) < 2e-3
    with torch.inference_mode():
        best = output.start_logits.max().item()
    assert max(found[0]["start_logit"] for found in n_best.values()) <= best + 1e-3
