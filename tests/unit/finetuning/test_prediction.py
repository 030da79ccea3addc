"""Scores come back in the order of the part, each its own sequence's, however batches and ranks share the work."""

from typing import Any

import numpy as np
import pytest
import torch

from bert_pytorch.finetuning.batches import take
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.finetuning.prediction import predict, scorer_of
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import Task, TaskModel
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import PrecisionConfig, choose_precision
from bert_pytorch.runtime.ranks import Ranks
from bert_pytorch.tasks.features import Features
from tests.support.packed_batches import small_config

CPU = torch.device("cpu")
COUNT = 13


def features() -> Features:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 24, COUNT)
    return Features(
        input_ids=rng.integers(0, 203, lengths.sum()).astype(np.int32),
        segment_b_starts=(lengths // 2).astype(np.int32),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
        examples=np.arange(COUNT, dtype=np.int32),
        labels=None,
    )


class OneOf(World):
    """A rank that keeps what it would send to rank 0."""

    sent: Any = None

    def any(self, flag: bool) -> bool:
        return flag

    def gather(self, value: Any) -> list[Any]:
        self.sent = value
        return []


def scores(model: TaskModel, world: World) -> list[np.ndarray] | None:
    config = FinetuningConfig(predict_batch_size=3, max_tokens=40, max_seq_length=32)
    return predict(
        model,
        features(),
        config,
        scorer=scorer_of(model, config, CPU, choose_precision(PrecisionConfig(), CPU), replays=True),
        world=world,
        stop_requested=lambda: False,
    )


@pytest.mark.parametrize("task", ["sequence_classification", "token_classification", "question_answering"])
def test_scores_are_those_of_each_sequence_alone_in_order(task: Task) -> None:
    model = TaskModel(small_config(hidden_dropout_prob=0.3), task, 2, seed=1).train()
    found = scores(model, World())
    assert found is not None
    assert model.training
    ranks = [OneOf(Ranks(rank, 3)) for rank in range(3)]
    for rank in ranks:
        scores(model, rank)
    shared = dict(pair for rank in ranks for pair in rank.sent)
    assert sorted(shared) == list(range(COUNT))
    model.eval()
    for number in range(COUNT):
        with torch.inference_mode():
            alone = model(PackedBatch.from_numpy(take(features(), np.array([number])).inputs, CPU)).numpy()
        alone = alone[0] if task == "sequence_classification" else alone
        assert found[number].shape == alone.shape
        assert np.allclose(found[number], alone, atol=1e-5)
        assert np.allclose(shared[number], alone, atol=1e-5)
