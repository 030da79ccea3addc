"""Updates with K-FAC on several ranks: `torch.distributed.run -m tests.support.kfac_ranks FILE`; rank 0 writes FILE."""

import sys

import torch

from bert_pytorch.records import MicroBatch
from bert_pytorch.runtime.distributed import World, discover_world
from bert_pytorch.runtime.rendezvous import RendezvousConfig
from tests.numerics.test_packed_forms import in_rows
from tests.support.kfac_updates import (
    INTERVALS,
    UPDATES,
    joined,
    kfac_of,
    movement,
    small_model,
    step_of,
    update_batches,
)

KINDS = ("bert", "modernbert")
FORMS = {
    "one packed micro-batch": lambda own: [joined(own)],
    "four packed micro-batches": lambda own: own,
    "one padded micro-batch": lambda own: [in_rows(joined(own), 12)],
    "four padded micro-batches": lambda own: [in_rows(batch, 3) for batch in own],
}
"""What a rank makes of its own half of an update's micro-batches."""
CASES = [(kind, form, 0.5 if "four" in form else 1.0) for kind in KINDS for form in FORMS]
"""With the part of the ranks that solve for a layer."""


def moved(world: World, kind: str, form: str, workers: float) -> list[dict[str, torch.Tensor]]:
    """Take the updates on this rank's share and return what each moved."""
    model = small_model(kind)
    step = step_of(model, kfac_of(model, world, kfac_gradient_workers=workers, **INTERVALS), world)
    each = []
    for number in UPDATES:
        own: list[MicroBatch] = update_batches(number, pairs=kind == "bert")[world.rank :: world.size]
        each.append(movement(model, step, FORMS[form](own), number))
    return each


def main() -> None:
    """Take all cases one after another."""
    torch.set_num_threads(1)
    world = discover_world(RendezvousConfig())
    world.connect(torch.device("cpu"))
    found = {f"{kind}, {form}, {workers}": moved(world, kind, form, workers) for kind, form, workers in CASES}
    if world.is_first:
        torch.save(found, sys.argv[1])
    world.disconnect()


if __name__ == "__main__":
    main()
