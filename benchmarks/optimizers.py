"""What does K-FAC add to an update, in time and in memory (H9)?

    python -m benchmarks.optimizers [--model bert_base_uncased] [--tokens 4096] [--max_rows N] [--device D]

One rank takes updates of one micro-batch of random sequences of 128 tokens, 15 % masked, and times their parts:
passes, watching them, averaging, decomposing, solving; the least of the repeats, of processor time on a CPU (run it
with one thread), which neighbours disturb little.  Two shallow models are measured, of --depths layers: layers are
alike, so that the whole model's parts are those of the one and as many times the difference as it has more layers.

shares   what K-FAC adds to an update of passes and optimizer at an interval of measuring / of decomposing, by tokens of
         a rank in an update: passes and watching are counted once for each micro-batch in it, the rest once
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import ModelConfig, load_model_config
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.models.pretraining import PretrainingModel
from bert_pytorch.optim.config import OptimizerConfig, build_optimizer
from bert_pytorch.optim.kfac.config import KfacConfig, build_preconditioner, estimate_memory
from bert_pytorch.optim.preconditioner import Preconditioner
from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.distributed import World

LENGTH = 128
INTERVALS = ((1, 10), (10, 100))
GOAL = {"share at 10/100": 0.05}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="bert_base_uncased")
    parser.add_argument("--depths", type=int, nargs=2, default=[1, 2])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max_rows", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--update_tokens", type=int, nargs="+", default=[4096, 32768, 524288])
    options = parser.parse_args()
    shape = load_model_config(options.model)
    fewer, more = (measure(shape.model_copy(update={"num_hidden_layers": depth}), options) for depth in options.depths)
    times = (shape.num_hidden_layers - options.depths[0]) / (options.depths[1] - options.depths[0])
    parts = {name: fewer[name] + times * (more[name] - fewer[name]) for name in fewer}
    shares = {
        f"{factor}/{inverse}": {
            tokens: round(share(parts, tokens / options.tokens, factor, inverse), 4) for tokens in options.update_tokens
        }
        for factor, inverse in INTERVALS
    }
    print(
        json.dumps(
            {
                "benchmark": "optimizers",
                "goal": GOAL,
                **vars(options),
                "shares": shares,
                "seconds": {name: round(seconds, 4) for name, seconds in parts.items()},
                "seconds_of_depths": [{name: round(each[name], 4) for name in each} for each in (fewer, more)],
                "gib": kfac_memory(options.model),
            }
        )
    )


def share(parts: dict[str, float], micro_batches: float, factor: int, inverse: int) -> float:
    """Return what K-FAC adds to an update of so many micro-batches, as a part of it."""
    plain = micro_batches * parts["passes"] + parts["optimizer"]
    measuring = micro_batches * parts["watching"] + parts["averaging"]
    return (parts["solving"] + measuring / factor + parts["decomposing"] / inverse) / plain


def kfac_memory(model: str) -> dict[str, dict[str, float]]:
    """Return GiB of the whole model on the fullest rank, by ranks and part of them that solve."""
    with torch.device("meta"):
        whole = build_model(load_model_config(model))
    return {
        f"{ranks} ranks, workers {workers}": {
            name: round(size / 2**30, 3)
            for name, size in estimate_memory(KfacConfig(kfac=True, kfac_gradient_workers=workers), whole, ranks)
            ._asdict()
            .items()
        }
        for ranks, workers in ((1, 1.0), (8, 1.0), (8, 0.5), (8, 0.125))
    }


def measure(shape: ModelConfig, options: argparse.Namespace) -> dict[str, float]:
    """Return seconds of each part of an update of one micro-batch."""
    device = torch.device(options.device)
    model = build_model(shape).to(device).train()
    batch = PackedBatch.from_numpy(random_sequences(options.tokens, shape.vocab_size), device)
    kfac = _kfac(model, options.max_rows)
    optimizer = build_optimizer(OptimizerConfig(), model.named_parameters())
    masked = len(batch.labels)

    def passes() -> None:
        terms = model(batch)
        (terms.mlm_loss_sum / masked).backward()

    def precondition() -> None:
        kfac.passes_done()
        kfac.precondition(learning_rate=1e-3)

    # Update 1 measures and decomposes, once; of the others every second one measures.
    seconds: dict[str, list[tuple[float, float, float]]] = {"first": [], "plain": [], "measured": []}
    for kind, step in zip(["first", *["plain", "measured"] * options.repeats], itertools.count(1), strict=False):
        model.zero_grad(set_to_none=True)
        kfac.begin(step, loss_terms=masked, gradient_scale=1.0)
        took = (_seconds(passes, device), _seconds(precondition, device), _seconds(optimizer.step, device))
        seconds[kind].append(took)
    solving = _least(seconds["plain"], 1)
    return {
        "passes": _least(seconds["plain"], 0),
        "optimizer": _least(seconds["plain"], 2),
        "solving": solving,
        "watching": _least(seconds["measured"], 0) - _least(seconds["plain"], 0),
        "averaging": _least(seconds["measured"], 1) - solving,
        "decomposing": _least(seconds["first"], 1) - _least(seconds["measured"], 1),
    }


def random_sequences(tokens: int, vocab_size: int) -> MicroBatch:
    """Make a micro-batch of full sequences without pairs."""
    rng = np.random.default_rng(0)
    sequences = tokens // LENGTH
    total = sequences * LENGTH
    masked = np.sort(rng.choice(total, round(0.15 * total), replace=False))
    return MicroBatch(
        input_ids=rng.integers(0, vocab_size, total).astype(np.int32),
        token_type_ids=np.zeros(total, np.int32),
        position_ids=np.tile(np.arange(LENGTH, dtype=np.int32), sequences),
        cu_seqlens=np.arange(0, total + 1, LENGTH, dtype=np.int32),
        masked_positions=masked,
        labels=rng.integers(0, vocab_size, len(masked)),
        next_sentence_labels=None,
    )


def _kfac(model: PretrainingModel, max_rows: int | None) -> Preconditioner:
    config = KfacConfig(kfac=True, kfac_factor_interval=2, kfac_inv_interval=10**6, kfac_max_rows=max_rows)
    kfac = build_preconditioner(config, model, World())
    assert kfac is not None
    return kfac


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    work()
    _wait(device)
    return clock() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _least(updates: Sequence[tuple[float, float, float]], part: int) -> float:
    return min(seconds[part] for seconds in updates)


if __name__ == "__main__":
    main()
