"""K-FAC on two ranks moves what one process moves, and what the dense computation says."""

import sys

import pytest
import torch
from torch import Tensor

from tests.support.errors_between import relative_error
from tests.support.kfac_ranks import CASES
from tests.support.kfac_updates import dense_movements, linear_names, matrix_of, small_model
from tests.support.runs import run_program

Movements = dict[str, list[dict[str, Tensor]]]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Movements:
    """Let two processes take all cases."""
    path = tmp_path_factory.mktemp("ranks") / "moved.pt"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    outcome = run_program([*launcher, "-m", "tests.support.kfac_ranks", str(path)])
    assert outcome.code == 0, outcome.err
    found: Movements = torch.load(path, weights_only=True)
    return found


@pytest.mark.parametrize(("kind", "form", "workers"), CASES)
def test_two_ranks_move_what_dense_solves_over_the_whole_batch_do(
    two_ranks: Movements, kind: str, form: str, workers: float
) -> None:
    model = small_model(kind)
    dense = dense_movements(kind, factored=False)
    for moved, (wanted, _) in zip(two_ranks[f"{kind}, {form}, {workers}"], dense, strict=True):
        for name in linear_names(model):
            found, right = (matrix_of(model.get_submodule(name), each, name) for each in (moved, wanted))
            assert relative_error(found, right) < 1e-9, name
