"""SQuAD as a task: its loss is transformers', its features follow from all that its cache is keyed by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert_pytorch.errors import InputError
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.tasks.squad.config import SquadConfig
from bert_pytorch.tasks.squad.task import SquadTask
from bert_pytorch.tokenization.tokenizer import Tokenizer
from tests.support.no_waiting import no_waiting
from tests.support.packed_batches import random_micro_batch
from tests.support.squad_files import letters, question, write_squad
from tests.support.vocabularies import small_vocabulary

TOKENIZER = Tokenizer(small_vocabulary())


def task_of(file: Path, tokenizer: Tokenizer = TOKENIZER, **values: Any) -> SquadTask:
    values = {"max_seq_length": 24, "doc_stride": 8, "max_query_length": 4} | values
    config = SquadConfig(train_file=(file,), predict_file=(file,), **values)
    return SquadTask(config, tokenizer, trains=True, evaluates=True, predicts=True)


def batch_of(lengths: list[int]) -> PackedBatch:
    batch = PackedBatch.from_numpy(random_micro_batch(lengths or [1]), "cpu")
    return batch._replace(lengths=tuple(lengths))


@pytest.mark.parametrize("lengths", [[5, 9, 7], [4], [6, 6]])
def test_the_loss_is_half_of_both_cross_entropies_over_each_window(tmp_path, lengths):
    task = task_of(letters(tmp_path / "f.json", 2))
    scores = torch.randn(sum(lengths), 2, dtype=torch.float64, requires_grad=True)
    labels = torch.stack([torch.randint(length, (2,)) for length in lengths])
    wanted = torch.zeros((), dtype=torch.float64)
    for window, (start, end) in zip(scores.split(lengths), labels.tolist(), strict=True):
        wanted = wanted - (window[:, 0].log_softmax(0)[start] + window[:, 1].log_softmax(0)[end]) / 2
    batch = batch_of(lengths)
    with no_waiting():
        found = task.loss_sum(scores, labels, batch)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(loss, scores, retain_graph=True)[0] for loss in (found, wanted)]
    torch.testing.assert_close(*gradients)
    assert task.count(labels.numpy()) == len(lengths)


def test_a_batch_without_windows_has_no_loss_and_no_gradient(tmp_path):
    scores = torch.zeros(0, 2, requires_grad=True)
    loss = task_of(letters(tmp_path / "f.json", 2)).loss_sum(scores, torch.zeros(0, 2, dtype=torch.long), batch_of([]))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.shape == (0, 2)


def test_features_hold_the_question_the_part_and_the_answer(tmp_path):
    path = write_squad(tmp_path / "f.json", ("a b c d e f g h", [question("x", "z z", ("g h", 12))]))
    features = task_of(path, max_seq_length=9, doc_stride=2).features("train")
    tokens = [TOKENIZER.vocabulary.tokens[index] for index in features.input_ids]
    assert " ".join(tokens) == " ".join(f"[CLS] z z [SEP] {part} [SEP]" for part in ("a b c d", "c d e f", "e f g h"))
    assert features.segment_b_starts.tolist() == [4, 4, 4]
    assert features.cu_seqlens.tolist() == [0, 9, 18, 27]
    assert features.examples.tolist() == [0, 0, 0]
    assert features.labels.tolist() == [[0, 0], [0, 0], [6, 7]]
    assert task_of(path).features("predict").labels is None


def test_the_cache_key_changes_with_all_that_shapes_features(tmp_path):
    path = letters(tmp_path / "f.json", 2)
    other = letters(tmp_path / "other.json", 2, seed=1)
    keys = [
        task_of(path).cache_key("train"),
        task_of(other).cache_key("train"),
        task_of(path, Tokenizer(small_vocabulary(lowercase=False))).cache_key("train"),
        task_of(path, Tokenizer(small_vocabulary()._replace(lowercase=False))).cache_key("train"),
        *(
            task_of(path, **{name: 16}).cache_key("train")
            for name in ("max_seq_length", "doc_stride", "max_query_length")
        ),
        task_of(path, version_2_with_negative=True).cache_key("train"),
    ]
    assert all(one != two for number, one in enumerate(keys) for two in keys[:number])
    assert keys[0] == task_of(path, n_best_size=3, null_score_diff_threshold=1.0).cache_key("train")


def test_version_2_reports_thresholds_and_both_kinds_of_question(tmp_path):
    task = task_of(letters(tmp_path / "f.json", 5, negative=True), version_2_with_negative=True)
    features = task.features("predict")
    rng = np.random.default_rng(0)
    metrics = task.metrics("predict", features, [rng.normal(size=(length, 2)) for length in features.lengths])
    assert (metrics["total"], metrics["HasAns_total"], metrics["NoAns_total"]) == (10, 5, 5)
    assert metrics["best_f1"] >= metrics["f1"]
    assert task.exported["question_answering"]["version_2_with_negative"] is True


def test_a_file_without_answers_is_predicted_but_not_evaluated(tmp_path):
    path = write_squad(tmp_path / "f.json", ("a b", [{"id": "x", "question": "a"}]))
    config = SquadConfig(predict_file=(path,))
    task = SquadTask(config, TOKENIZER, trains=False, evaluates=False, predicts=True)
    features = task.features("predict")
    scores = [np.zeros((length, 2)) for length in features.lengths]
    assert task.metrics("predict", features, scores) == {}
    task.write_predictions("predict", features, scores, tmp_path)
    assert (tmp_path / "predictions.json").is_file()
    with pytest.raises(InputError, match="neither trained on nor evaluated"):
        SquadTask(config, TOKENIZER, trains=False, evaluates=True, predicts=True)
