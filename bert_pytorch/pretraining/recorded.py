"""`--cuda_graphs`: the forward and the backward pass of a micro-batch, recorded once and replayed.

A replay launches a pass at once, where Python would launch its hundreds of kernels one by one: what small models and
small micro-batches on a fast GPU wait for.  It needs the same shapes in every micro-batch, as `--packing rows` has.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bert_pytorch.data.fixed_rows import RowPlaces, RowShape, lay_in_rows, no_sequences
from bert_pytorch.errors import ConfigError
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.losses import EachLoss, LossTerms
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.runtime.compilation import record_graphs
from bert_pytorch.runtime.device import widest_float
from bert_pytorch.runtime.precision import Precision

Losses = Callable[..., tuple[Tensor, ...]]
Recorder = Callable[[nn.Module, tuple[Tensor, ...]], Losses]
"""Takes a module and sample arguments; returns what computes the same from arguments of the same shapes."""


class RecordedModel(nn.Module):
    """A model's losses of micro-batches of one shape, by graphs.

    Parameters are the model's own; evaluation asks the model itself.

    Args:
        model: maps a `PackedBatch` to `LossTerms`, in training mode, on a CUDA device.
        sample: of the shape of all micro-batches; its contents do not matter.
        record: how to record; None: as CUDA graphs.
        precision: of the passes.
    """

    def __init__(
        self, model: nn.Module, sample: PackedBatch, precision: Precision, record: Recorder | None = None
    ) -> None:
        super().__init__()
        self.losses = _Losses(model, sample)
        with precision.autocast(cache_weights=False):  # what a cache holds would be another replay's memory
            self._replay = (record or record_graphs)(self.losses, sample.tensors())

    def forward(self, batch: PackedBatch) -> LossTerms:
        """Return the losses of a micro-batch, good until the next one."""
        sums = iter(self._replay(*batch.tensors()))
        each = EachLoss(*(next(sums) if learnt else None for learnt in self.losses.learnt))
        assert each.mlm is not None
        return LossTerms(each.mlm, each.nsp, None, None, each.soft_targets, each.cosine)


def refuse_without_gpu(config: PretrainingConfig, device: torch.device) -> None:
    """Refuse `--cuda_graphs` elsewhere, and `--kfac` where there is no float64.

    Raises:
        ConfigError: if the device cannot do what is asked for.
    """
    if config.kfac and widest_float(device) != torch.float64:
        raise ConfigError(
            "--kfac", [f"it adds up and decomposes in float64, which {device.type} has not; leave it out."]
        )
    if config.cuda_graphs and device.type != "cuda":
        raise ConfigError("--cuda_graphs", [f"it wants a CUDA GPU, found {device.type}; leave it out."])


def sample_rows(shape: RowShape, device: torch.device, *, next_sentence: bool) -> PackedBatch:
    """Return a micro-batch of rows of padding."""
    nowhere = RowPlaces(np.zeros(0, np.int64), np.zeros(0, np.int64))
    return PackedBatch.from_numpy(lay_in_rows(no_sequences(next_sentence=next_sentence), nowhere, shape), device)


class _Losses(nn.Module):
    """From tensors to tensors, as graphs want it."""

    def __init__(self, model: nn.Module, sample: PackedBatch) -> None:
        super().__init__()
        self.model = model
        self._sample = sample
        self.learnt: Sequence[bool] = ()
        """Which losses the model returned."""

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        terms: LossTerms = self.model(self._sample.with_tensors(tensors))
        self.learnt = tuple(value is not None for value in terms.sums())
        return tuple(value for value in terms.sums() if value is not None)
