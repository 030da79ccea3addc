"""How fast a fine-tuned model answers: sequences per second, and how long a batch takes."""

import logging
import time

import numpy as np

from bert_pytorch.files import atomic_write_json
from bert_pytorch.finetuning.batches import take
from bert_pytorch.finetuning.session import Session
from bert_pytorch.models.tasks import TaskModel
from bert_pytorch.tasks.scorer import Scorer

logger = logging.getLogger(__name__)

BENCHMARK = "inference_benchmark.json"
WARM_UP = 3
"""Batches that are computed first and not counted."""
PERCENTILES = (50, 90, 95, 99, 100)


def benchmark_inference(session: Session, model: TaskModel, scorer: Scorer) -> bool:
    """Do what `--benchmark_batches` asks for; all ranks call this together.

    A batch is timed from its arrays on the host to its scores there, and begins when the one before is done.
    Sequences are those of the first of the task's `predict_parts`, in their order, as often as needed.

    Returns:
        False if a stop was asked for on the way.
    """
    config, world = session.config, session.world
    if not config.benchmark_batches:
        return True
    features, size = session.parts[session.task.predict_parts[0]], config.predict_batch_size
    seconds, tokens = [], 0
    was_training = model.training
    model.eval()
    for number in range(-WARM_UP, config.benchmark_batches):
        if world.any(session.stop_requested()):
            return False
        first = ((number + WARM_UP) * world.size + world.rank) * size
        batch = take(features, np.arange(first, first + size) % len(features.examples)).inputs
        began = time.perf_counter()
        scorer(batch)
        if number >= 0:
            seconds.append(time.perf_counter() - began)
            tokens += batch.num_tokens
    model.train(was_training)
    ranks = world.gather((np.array(seconds), tokens))
    world.on_first(lambda: _tell(session, ranks))
    return True


def _tell(session: Session, ranks: list[tuple[np.ndarray, int]]) -> None:
    size = session.config.predict_batch_size
    latencies = 1e3 * np.concatenate([seconds for seconds, _ in ranks])
    found: dict[str, float | int | str] = {
        "device": str(session.device),
        "ranks": len(ranks),
        "precision": session.precision.name,
        "batch_size": size,
        "batches": len(latencies),
        "sequences_per_second": sum(size * len(seconds) / float(seconds.sum()) for seconds, _ in ranks),
        "tokens_per_second": sum(tokens / float(seconds.sum()) for seconds, tokens in ranks),
        "latency_ms_mean": float(latencies.mean()),
    }
    found |= {f"latency_ms_{rank}": float(np.percentile(latencies, rank)) for rank in PERCENTILES}
    atomic_write_json(session.output_dir / BENCHMARK, found)
    logger.info(
        "inference: %.1f sequences/s in batches of %d; a batch takes %.1f ms (median), %.1f ms (99 of 100)",
        found["sequences_per_second"], size, found["latency_ms_50"], found["latency_ms_99"],
    )  # fmt: skip
