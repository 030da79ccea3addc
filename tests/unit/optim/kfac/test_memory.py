"""What `--dry_run` says of K-FAC's memory is what the ranks come to hold."""

import pytest
import torch

from bert_pytorch.optim.kfac.config import KfacConfig, estimate_memory
from bert_pytorch.runtime.distributed import World
from bert_pytorch.runtime.ranks import Ranks
from tests.support.kfac_updates import kfac_of, movement, small_model, step_of, update_batches

RANKS = 4


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_memory_that_is_foretold_is_that_of_the_rank_that_holds_most(workers: int) -> None:
    model = small_model("bert")
    kfac = kfac_of(model)
    movement(model, step_of(model, kfac), update_batches(1, pairs=True), 1)
    state = kfac.state_dict()
    held = []
    for rank in range(RANKS):  # each takes from a checkpoint what it works with
        one = kfac_of(model, World(Ranks(rank, RANKS, 0)), kfac_gradient_workers=workers / RANKS)
        one.load_state_dict(state, "ckpt_1.pt")
        held.append(sum(part.nbytes for basis in one._bases.values() for part in basis))
    with torch.device("meta"):
        foretold = estimate_memory(
            KfacConfig(kfac=True, kfac_gradient_workers=workers / RANKS), small_model("bert"), RANKS
        )
    assert foretold.eigenbases == max(held)
    assert sum(held) == workers * sum(part.nbytes for basis in state["bases"].values() for part in basis.values())
    assert foretold.averages == sum(part.nbytes for parts in state["factors"].values() for part in parts.values())
    assert foretold.measuring > 1.5 * foretold.averages  # whole squares; of 8 numbers a triangle is 36 of 64
