"""Scores of every sequence of a part, computed by all ranks together, back in the part's order."""

from collections.abc import Callable

import numpy as np
import torch

from bert_pytorch.finetuning.batches import passes
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tasks.features import Features


def predict(
    model: TaskModel,
    features: Features,
    config: FinetuningConfig,
    *,
    world: World,
    device: torch.device,
    precision: Precision,
    stop_requested: Callable[[], bool],
) -> list[np.ndarray] | None:
    """Score a part without dropout.

    Args:
        model: not wrapped.
        features: of the part, the same on every rank.
        config: batch sizes.
        world: the ranks, which all call this together.
        device: of the model.
        precision: of the forward passes.
        stop_requested: asked between batches.

    Returns:
        On rank 0 float32, one array a sequence: (labels,), (tokens, labels) or (tokens, 2); on others an empty list.
        None on every rank if a stop was asked for on the way.
    """
    was_training = model.training
    model.eval()
    mine: list[tuple[int, np.ndarray]] = []
    try:
        with torch.inference_mode():
            for batch in passes(features, config, rank=world.rank, world_size=world.size):
                if world.any(stop_requested()):
                    return None
                if not len(batch.sequences):
                    continue
                mine += zip(batch.sequences.tolist(), scores_of(model, batch.inputs, device, precision), strict=True)
    finally:
        model.train(was_training)
    gathered = world.gather(mine)
    return [scores for _, scores in sorted((pair for one in gathered for pair in one), key=lambda pair: pair[0])]


def scores_of(model: TaskModel, batch: MicroBatch, device: torch.device, precision: Precision) -> list[np.ndarray]:
    """Return the scores of each sequence of a batch, float32, once the device has them."""
    with precision.autocast():
        scores = model(PackedBatch.from_numpy(batch, device))
    by_sequence = scores.float().cpu().numpy()
    if model.task == "sequence_classification":
        return list(by_sequence)
    return np.split(by_sequence, batch.cu_seqlens[1:-1])
