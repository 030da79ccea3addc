"""Scores in fixed shapes are those of packed batches, from one recorded graph for each shape.  Driven by a stand-in."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bert_pytorch.models.tasks import Task, TaskModel
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime import hpu
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tasks.features import Features, packed
from bert_pytorch.tasks.scorer import Scorer
from tests.support.habana import gaudi
from tests.support.packed_batches import small_config

HPU = torch.device("hpu")
BATCHES = [(5, 31, 2, 17), (33, 9), (32, 3, 3, 3, 3, 3, 3), (40,)]
"""Lengths: rows of 32 tokens, of 64, of 32, of 64."""


def batch_of(lengths: Sequence[int], seed: int) -> MicroBatch:
    rng = np.random.default_rng(seed)
    features = Features(
        input_ids=rng.integers(1, 203, sum(lengths)).astype(np.int32),
        segment_b_starts=np.array([length // 2 for length in lengths], np.int32),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        examples=np.arange(len(lengths), dtype=np.int32),
        labels=None,
    )
    return packed(features, np.arange(len(lengths))).inputs


def scores(model: TaskModel, device: torch.device, *, longest: int | None, replays: bool) -> list[np.ndarray]:
    precision = Precision("fp32", "", device.type)
    scorer = Scorer(model, device, precision, max_tokens=130, longest=longest, replays=replays)
    return [each for seed, lengths in enumerate(BATCHES) for each in scorer(batch_of(lengths, seed))]


@pytest.mark.parametrize("task", ["sequence_classification", "token_classification", "question_answering"])
@pytest.mark.parametrize(("lazy", "replays", "longest"), [(True, True, None), (True, False, 40), (False, True, 40)])
def test_scores_in_rows_are_those_of_packed_sequences(
    task: Task, lazy: bool, replays: bool, longest: int | None
) -> None:
    model = TaskModel(small_config(), task, 2 if task == "question_answering" else 3, seed=1).eval()
    wanted = scores(model, torch.device("cpu"), longest=longest, replays=replays)
    with gaudi(lazy=lazy) as calls:
        hpu.load(compiles=False, dynamic_shapes=False)
        found = scores(model.to(HPU), HPU, longest=longest, replays=replays)
        made = list(calls)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    graphs = 2 if lazy and replays else 0
    assert made.count("wrap_in_hpu_graph") == made.count("capture") == graphs
    assert made.count("replay") == (3 if graphs else 0)  # 4 rows of 32 take the third batch in two parts
