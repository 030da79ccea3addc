"""Held-out losses of a model: one pass over a set with masks that are always the same."""

from collections.abc import Callable, Iterable

import torch

from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.device import end_graph, widest_float
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.precision import Precision
from bert_pytorch.tracking.records import EvalRow


def evaluate(
    model: PretrainingModel,
    batches: Iterable[MicroBatch],
    *,
    step: int,
    world: World,
    device: torch.device,
    precision: Precision,
    stop_requested: Callable[[], bool],
) -> EvalRow | None:
    """Return losses and accuracies over all ranks' batches, or None if a stop was asked for on the way.

    Args:
        model: not wrapped; evaluated without dropout.
        batches: as many on every rank.
        step: updates done, for the row.
        world: the ranks.
        device: of the model.
        precision: of the forward passes.
        stop_requested: asked between micro-batches.
    """
    wide = widest_float(device)
    sums = torch.zeros(3, dtype=wide, device=device)  # MLM loss, right masked tokens, right pairs
    masked = pairs = 0
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in batches:
                if world.any(stop_requested()):
                    return None
                with precision.autocast():
                    terms = model(PackedBatch.from_numpy(batch, device), with_accuracy=True)
                sums += torch.stack(
                    [
                        terms.mlm_loss_sum.to(wide),
                        terms.mlm_correct.to(wide),
                        terms.nsp_correct.to(wide) if terms.nsp_correct is not None else sums.new_zeros(()),
                    ]
                )
                end_graph(device)
                masked += batch.num_masked
                pairs += batch.num_pairs
    finally:
        model.train(was_training)
    mlm_sum, mlm_correct, nsp_correct, masked_total, pairs_total = world.sum([*sums.tolist(), masked, pairs])
    return EvalRow(
        step=step,
        mlm_loss=mlm_sum / max(masked_total, 1),
        mlm_accuracy=mlm_correct / max(masked_total, 1),
        nsp_accuracy=nsp_correct / pairs_total if pairs_total else None,
        masked_tokens=int(masked_total),
    )
