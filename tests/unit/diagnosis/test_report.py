"""What `launch check` tells: bandwidths by nccl-tests' definition, slow ranks by name."""

import pytest

from bert_pytorch.diagnosis.report import (
    Message,
    RankFound,
    Report,
    algorithm_bandwidth,
    as_json,
    bus_bandwidth,
    describe,
    slow_ranks,
)


def ranks(*gigaflops: float) -> tuple[RankFound, ...]:
    return tuple(
        RankFound(rank, f"n{rank // 2 + 1}", "cpu", "1 (0), 1 threads", 1e9 * value)
        for rank, value in enumerate(gigaflops)
    )


@pytest.mark.parametrize(("count", "bus"), [(2, 1.0), (4, 1.5), (8, 1.75), (1024, 2 * 1023 / 1024)])
def test_the_bus_carries_two_times_n_minus_1_over_n_of_what_the_algorithm_does(count: int, bus: float) -> None:
    message = Message("float32", 3_000_000, 0.003)
    assert algorithm_bandwidth(message) == pytest.approx(1e9)
    assert bus_bandwidth(message, count) == pytest.approx(bus * 1e9)


@pytest.mark.parametrize(
    ("rates", "slow"),
    [
        ((100, 100, 100, 100), []),
        ((100, 100, 50, 100), [(2, 2.0)]),
        ((100, 100, 50, 25), [(3, 4.0), (2, 2.0)]),
        ((100, 81), [(1, 100 / 81)]),  # of two ranks the slower one, though their mean is between
        ((100, 84), []),
        ((100,), []),
    ],
)
def test_ranks_far_under_the_median_are_slow_the_slowest_first(
    rates: tuple[float, ...], slow: list[tuple[int, float]]
) -> None:
    assert [(each.rank, pytest.approx(times)) for each, times in slow_ranks(ranks(*rates), 1.2)] == slow


def test_the_slowest_rank_stands_first_with_its_machine_and_a_warning() -> None:
    messages = (Message("float32", 8, 1e-4), Message("float32", 1 << 20, 2e-3), Message("float32", 1 << 24, 2e-2))
    lines = list(describe(Report("eth0, on the route to n1", messages, ranks(100, 90, 100, 30)), 1.2))
    assert lines[0] == "4 ranks on 2 machines; network: eth0, on the route to n1"
    assert "latency 100.0 us (8 B), bandwidth 1.258 GB/s on the bus (float32 16 MiB)" in lines
    table = [line for line in lines if line.startswith("  rank")]
    assert [line.split()[1] for line in table] == ["3", "1", "0", "2"]
    assert lines[-1] == "warning: rank 3 on n2 computes 3.33 times slower than the median rank"


def test_of_many_ranks_the_slow_ones_are_shown() -> None:
    lines = list(describe(Report("eth0", (), ranks(*[10.0] * 20, *[100.0] * 30)), 1.2))
    assert sum(line.startswith("  rank") for line in lines) == 8
    assert lines[-1] == "warning: 12 more are over 1.2 times slower"


def test_one_rank_has_nobody_to_talk_to() -> None:
    text = "\n".join(describe(Report("this process alone", (), ranks(100)), 1.2))
    assert "1 rank on 1 machine" in text
    assert "nobody to exchange messages with" in text
    assert "warning" not in text


def test_json_holds_the_same_numbers() -> None:
    found = as_json(Report("eth0", (Message("float32", 8, 1e-6),), ranks(100, 10)), 1.2)
    assert found["messages"] == [
        {"dtype": "float32", "num_bytes": 8, "seconds": 1e-6, "algorithm_bandwidth": 8e6, "bus_bandwidth": 8e6}
    ]
    assert found["slow_ranks"] == [1]
