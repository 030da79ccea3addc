"""`--cuda_graphs`: what is replayed gives the model's own losses and gradients, for whatever is in the rows."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows
from bert_pytorch.models.build import build_model
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.pretraining.recorded import RecordedModel, sample_rows
from bert_pytorch.runtime.precision import Precision
from tests.support.kernel_checks import DEVICE
from tests.support.packed_batches import random_micro_batch, small_config

SHAPE = RowShape(rows=3, length=32, slots=3, masked_per_row=12, pad_id=0)
FP32 = Precision("fp32", "", DEVICE.type)


def row_batch(lengths: tuple[int, ...], *, pairs: bool, seed: int) -> PackedBatch:
    """Two sequences a row."""
    number = np.arange(len(lengths))
    packed = random_micro_batch(lengths, pairs=pairs, seed=seed)
    return PackedBatch.from_numpy(lay_in_rows(packed, RowPlaces(number // 2, number % 2), SHAPE), DEVICE)


def losses_and_gradients(run: nn.Module, model: PretrainingModel, batch: PackedBatch) -> list[Tensor]:
    model.zero_grad()
    terms = run(batch)
    sums = [value for value in terms.sums() if value is not None]
    torch.stack(sums).sum().backward()
    zeros = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [*(value.detach().clone() for value in sums), *zeros]


def strict_shapes(module: nn.Module, sample: tuple[Tensor, ...]) -> Callable[..., object]:
    """Stand in for a recording: computes anew, and takes nothing but what a graph would take."""
    wanted = [(tensor.shape, tensor.dtype) for tensor in sample]
    module(*sample)  # recording runs the passes

    def replay(*tensors: Tensor) -> object:
        assert [(tensor.shape, tensor.dtype) for tensor in tensors] == wanted
        return module(*tensors)

    return replay


@pytest.mark.parametrize("pairs", [True, False])
def test_replays_equal_the_model_whatever_the_rows_hold(pairs: bool) -> None:
    model = build_model(small_config(next_sentence=pairs)).to(DEVICE)
    record = None if DEVICE.type == "cuda" else strict_shapes
    sample = sample_rows(SHAPE, DEVICE, next_sentence=pairs)
    recorded = RecordedModel(model, sample, FP32, record)
    for seed, lengths in enumerate([(20, 9, 30, 2, 17, 15), (8, 8), (32 - 3, 3, 31)]):
        batch = row_batch(lengths, pairs=pairs, seed=seed)
        found, wanted = losses_and_gradients(recorded, model, batch), losses_and_gradients(model, model, batch)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert list(recorded.parameters()) == list(model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a CUDA device")
def test_replayed_dropout_is_a_function_of_the_seed() -> None:
    model = build_model(small_config(hidden_dropout_prob=0.2)).to(DEVICE)
    precision = Precision("bf16", "", "cuda")
    recorded = RecordedModel(model, sample_rows(SHAPE, DEVICE, next_sentence=True), precision)
    batch = row_batch((20, 9, 30), pairs=True, seed=1)
    found = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        found.append(losses_and_gradients(recorded, model, batch))
    assert not torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(one, again) for one, again in zip(found[0], found[2], strict=True))
