"""What does it save that K-FAC's statistics travel while something else runs?

    python -m torch.distributed.run --standalone --nproc_per_node 2 -m benchmarks.kfac_ranks [--model M] [--layers N]

Every rank takes updates that measure, in turns with sums that are waited for one by one and with sums that travel, and
times from the end of its passes to the preconditioned gradients, the norm of the gradients in between as in a step;
wall clock, medians over the updates.  The gradients of both must be the same bits.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.optimizers import random_sequences
from bert_pytorch.models.build import build_model
from bert_pytorch.models.config import load_model_config
from bert_pytorch.models.inputs import PackedBatch
from bert_pytorch.optim.kfac.config import KfacConfig, build_preconditioner
from bert_pytorch.optim.norms import global_norm
from bert_pytorch.runtime.distributed import World, discover_world
from bert_pytorch.runtime.rendezvous import RendezvousConfig


class OneByOne:
    """The ranks, for whom a sum is there before anything else begins."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> object:
        return getattr(self._world, name)

    def start_adding(self, tensor: torch.Tensor) -> Callable[[], None]:
        """Add and wait."""
        self._world.start_adding(tensor)()
        return lambda: None


def main() -> None:
    """Print one JSON line on the first rank."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="bert_base_uncased")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--updates", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    world = discover_world(RendezvousConfig())
    world.connect(torch.device("cpu"))
    changes = {"num_hidden_layers": options.layers, "hidden_dropout_prob": 0.0}
    shape = load_model_config(options.model).model_copy(update=changes)
    model = build_model(shape).train()
    sides: dict[str, World | OneByOne] = {"one by one": OneByOne(world), "travelling": world}
    flags = KfacConfig(kfac=True, kfac_inv_interval=10**6, kfac_factor_interval=1)
    kfacs = {name: build_preconditioner(flags, model, side) for name, side in sides.items()}  # type: ignore[arg-type]
    batch = PackedBatch.from_numpy(random_sequences(options.tokens, shape.vocab_size), "cpu")
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(1, options.updates + 2):
        solved = []
        for name, kfac in kfacs.items():
            assert kfac is not None
            model.zero_grad(set_to_none=True)
            kfac.begin(step, loss_terms=len(batch.labels) * world.size, gradient_scale=1.0)
            (model(batch).mlm_loss_sum / len(batch.labels)).backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            world.sum([0.0])  # all are here
            begun = time.perf_counter()
            kfac.passes_done()
            global_norm(gradients).item()
            kfac.precondition(learning_rate=1e-3)
            if step > 1:  # which decomposes
                seconds[name].append(time.perf_counter() - begun)
            solved.append([gradient.clone() for gradient in gradients])
        assert all(torch.equal(one, other) for one, other in zip(*solved, strict=True))
    if world.is_first:
        medians = {name: round(statistics.median(times), 4) for name, times in seconds.items()}
        print(json.dumps({"benchmark": "kfac_ranks", "ranks": world.size, **vars(options), "seconds": medians}))
    world.disconnect()


if __name__ == "__main__":
    main()
