"""Two ranks that share out the optimizer's state train as two that each keep all of it: to the bit."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runs import assert_same_state, run_ranks, started_ranks
from tests.support.sharded_ranks import CASES

Ended = dict[str, dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ended, Ended]:
    """Let two processes take all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks([[sys.executable, "-m", "tests.support.sharded_ranks", str(folder)]] * 2, folder / "log")
    first, second = (torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1))
    return first, second


@pytest.mark.parametrize("case", CASES)
def test_weights_losses_and_the_state_in_files_do_not_tell_whether_it_was_sharded(
    ranks: tuple[Ended, Ended], case: str
) -> None:
    for each in ranks:
        plain, sharded = each[case]["plain"], each[case]["sharded"]
        assert_same_state(sharded["model"], plain["model"], "model")
        assert sharded["told"] == plain["told"]
    first = ranks[0][case]
    assert_same_state(first["sharded"]["optimizer"], first["plain"]["optimizer"], "optimizer")
    assert list(first["sharded"]["optimizer"]["state"]) == list(first["plain"]["optimizer"]["state"])


@pytest.mark.parametrize("case", CASES)
def test_each_rank_keeps_half_of_the_moments(ranks: tuple[Ended, Ended], case: str) -> None:
    whole = ranks[0][case]["plain"]["bytes"]
    kept = [each[case]["sharded"]["bytes"] for each in ranks]
    assert sum(kept) == whole == ranks[1][case]["plain"]["bytes"]
    assert max(kept) < 0.52 * whole  # word embeddings are a third of this model
    resumed = [each[case]["sharded, then sharded"]["bytes"] for each in ranks]
    assert resumed == kept


@pytest.mark.parametrize("then", ["plain", "sharded"])
@pytest.mark.parametrize("before", ["plain", "sharded"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_goes_on_with_the_same_bits_whoever_wrote_it_and_whoever_goes_on(
    ranks: tuple[Ended, Ended], case: str, before: str, then: str
) -> None:
    wanted, found = ranks[0][case]["plain"], ranks[0][case][f"{before}, then {then}"]
    assert_same_state(found["model"], wanted["model"], "model")
    assert_same_state(found["optimizer"], wanted["optimizer"], "optimizer")
    assert found["told"] == wanted["told"][-len(found["told"]) :]


def test_the_cases_are_not_the_same_one(ranks: tuple[Ended, Ended]) -> None:
    assert len({str(ranks[0][case]["plain"]["told"]) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_dies_while_state_is_gathered_leaves_none_waiting(lost: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.support.sharded_ranks", str(tmp_path), str(lost)]
    with started_ranks([command] * 2, tmp_path / "log") as processes:
        codes = [process.wait(120) for process in processes]
    assert codes[lost] == 9
    assert codes[1 - lost] == 1
    assert f"rank {1 - lost} lost contact" in (tmp_path / "log").read_text()
