"""Scores of every sequence of a part, computed by all ranks together, back in the part's order."""

from collections.abc import Callable

import numpy as np
import torch

from bert_pytorch.finetuning.batches import passes
from bert_pytorch.finetuning.config import FinetuningConfig
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tasks.features import Features
from bert_pytorch.tasks.scorer import Scorer


def scorer_of(
    model: TaskModel, config: FinetuningConfig, device: torch.device, precision: Precision, *, replays: bool
) -> Scorer:
    """Return what scores batches of a part.

    Args:
        model: on the device.
        config: batch sizes.
        device: where.
        precision: of the forward passes.
        replays: whether the model will not be trained any more, so that a device may record it.
    """
    return Scorer(
        model,
        device,
        precision,
        max_tokens=config.max_tokens,
        max_sequences=config.predict_batch_size,
        longest=config.max_seq_length,
        replays=replays,
    )


def predict(
    model: TaskModel,
    features: Features,
    config: FinetuningConfig,
    *,
    scorer: Scorer,
    world: World,
    stop_requested: Callable[[], bool],
) -> list[np.ndarray] | None:
    """Score a part without dropout.

    Args:
        model: not wrapped.
        features: of the part, the same on every rank.
        config: batch sizes.
        scorer: of the model.
        world: the ranks, which all call this together.
        stop_requested: asked between batches.

    Returns:
        On rank 0 float32, one array a sequence: (labels,), (tokens, labels) or (tokens, 2); on others an empty list.
        None on every rank if a stop was asked for on the way.
    """
    was_training = model.training
    model.eval()
    mine: list[tuple[int, np.ndarray]] = []
    try:
        for batch in passes(features, config, rank=world.rank, world_size=world.size):
            if world.any(stop_requested()):
                return None
            if len(batch.sequences):
                mine += zip(batch.sequences.tolist(), scorer(batch.inputs), strict=True)
    finally:
        model.train(was_training)
    gathered = world.gather(mine)
    return [scores for _, scores in sorted((pair for one in gathered for pair in one), key=lambda pair: pair[0])]
