"""The model by which scaling is extrapolated, against the formula written out and what must hold in its limits."""

import argparse
import math
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.communication import (
    ACHIEVED,
    NETWORKS,
    all_reduce_seconds,
    measured_network,
    project,
    update_seconds,
)
from benchmarks.scaling import Kind, Measured, figures, measured_table, train

LINK = measured_network("x", "measured", smallest_seconds=2e-3, bus_bandwidth=1e9, ranks=2)
WORK = {
    "sequence": 0.01, "batch": 100, "micro_batch": 50, "fixed": 0.1, "num_bytes": 4e8, "network": LINK,
}  # fmt: skip


@pytest.mark.parametrize("ranks", [2, 3, 8, 1024])
def test_a_ring_takes_its_steps_and_its_share_of_the_bytes(ranks: int) -> None:
    expected = 2 * (ranks - 1) * 1e-3 + 2 * (ranks - 1) / ranks * 4e8 / 1e9
    assert all_reduce_seconds(4e8, ranks, LINK) == pytest.approx(expected)


def test_the_measurement_comes_out_again() -> None:
    assert all_reduce_seconds(0, 2, LINK) == pytest.approx(2e-3)
    assert all_reduce_seconds(1e9, 2, LINK) == pytest.approx(1 + 2e-3)
    assert all_reduce_seconds(1e9, 1, LINK) == 0


def test_between_machines_the_network_bounds_what_links_within_could_do() -> None:
    fast, ethernet, slow = NETWORKS
    within = [all_reduce_seconds(1.34e9, 8, network) for network in NETWORKS]
    assert within[0] == within[1] == within[2] == pytest.approx(8.4e-6 + 14 * 3.4e-6 + 14 / 8 * 1.34e9 / 360e9)
    machines, steps = 8, 2 * 63
    expected = 8.4e-6 + (steps - 2 * machines) * 3.4e-6 + 2 * machines * 50e-6
    expected += 2 * 63 / 64 * 1.34e9 / (ACHIEVED * 12.5e9)
    assert all_reduce_seconds(1.34e9, 64, ethernet) == pytest.approx(expected)
    assert all_reduce_seconds(1.34e9, 64, fast) < expected < all_reduce_seconds(1.34e9, 64, slow)


def test_a_backward_pass_hides_what_is_shorter_than_itself() -> None:
    assert update_seconds(3.0, 0.5, 0.9, hides=True) == 3.0
    assert update_seconds(3.0, 0.8, 0.9, hides=True) == pytest.approx(3.2)
    assert update_seconds(3.0, 0.8, 0.9, hides=False) == pytest.approx(3.8)


@pytest.mark.parametrize("grows", [True, False])
def test_one_device_is_no_faster_than_itself(grows: bool) -> None:
    found = project(**WORK, devices=1, grows=grows, hides=False)
    assert (found.speed_up, found.expansion) == (1, 1)
    assert found.seconds == pytest.approx(100 * 0.01 + 0.1)


def test_speed_up_is_sequences_a_second_over_one_devices() -> None:
    weak = project(**WORK, devices=4, grows=True, hides=False)
    assert weak.seconds == pytest.approx(1.1 + weak.communication)
    assert weak.speed_up == pytest.approx((400 / weak.seconds) / (100 / 1.1))
    strong = project(**WORK, devices=4, grows=False, hides=False)
    assert strong.seconds == pytest.approx(0.25 + 0.1 + strong.communication)
    assert strong.speed_up == pytest.approx(1.1 / strong.seconds)
    assert strong.expansion == pytest.approx(strong.speed_up / 4)


def test_a_shared_batch_hides_no_more_than_its_last_micro_batch() -> None:
    few = project(**WORK, devices=4, grows=False, hides=True)  # 25 sequences a device, less than a micro-batch
    assert few.seconds == pytest.approx(0.35 + few.communication - 2 / 3 * 0.25)


def test_without_communication_a_growing_batch_scales_as_it_should() -> None:
    free = measured_network("free", "none", 0.0, math.inf, 2)
    assert project(**(WORK | {"network": free}), devices=1024, grows=True, hides=False).expansion == 1


def test_ratios_are_of_one_round_and_their_median_is_reported() -> None:
    one, two = Kind("one", 1, 8), Kind("two", 2, 16)
    rounds = [{"one": Measured(a, 8 / a), "two": Measured(b, 16 / b)} for a, b in ((1.0, 1.0), (2.0, 2.5), (1.0, 4.0))]
    found = figures(two, one, rounds)
    assert (found["speed_up"], found["least"], found["most"], found["expansion"]) == (1.6, 0.5, 2.0, 0.8)
    assert found["seconds"] == 2.5
    table = list(measured_table([found]))
    assert table[-1] == "| two | 2 | 16 | 2.500 | 0.400 | 6.4 | 1.60 (0.50 to 2.00) | 0.80 |"


def test_runs_at_once_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter((2.0, 4.0))
    monkeypatch.setattr(scaling, "update_of_a_run", lambda *_: next(taken))
    kind = Kind("two runs", 1, 8, runs=2)
    found = train(kind, argparse.Namespace(), Path())
    assert found == Measured(3.0, 8 / 2.0 + 8 / 4.0)
    row = figures(kind, Kind("one", 1, 8), [{"one": Measured(2.0, 4.0), "two runs": found}])
    assert (row["ranks"], row["batch"], row["speed_up"], row["expansion"]) == (2, 16, 1.5, 0.75)
