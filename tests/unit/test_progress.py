"""The lines that stand in for a bar."""

import logging

import pytest

from bert_pytorch import progress as progress_module
from bert_pytorch.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress_module.sys.stderr, "isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO)
    return now


def test_a_resumed_piece_counts_in_the_share_but_in_no_rate(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with Progress("fetch", 100_000_000, done_before=40_000_000) as shown:
        clock[0] = 5
        shown.advance(1)
        assert not caplog.messages
        clock[0] = 10
        shown.advance(9_999_999)
    assert caplog.messages == ["fetch: 50% of 100.0 MB, 1.00 MB/s, 00:50 left", "fetch: 10.0 MB in 00:10, 1.00 MB/s"]


def test_without_a_total_the_amount_is_told(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with Progress("fetch", None) as shown:
        clock[0] = 20
        shown.advance(40_000_000)
    assert caplog.messages == ["fetch: 40.0 MB, 2.00 MB/s", "fetch: 40.0 MB in 00:20, 2.00 MB/s"]


def test_lines_tell_share_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    with Progress("format", 80_000_000) as progress:
        for clock[0], finished in [(1005.0, 0), (1010.0, 0), (1019.0, 20_000_000), (1020.0, 0), (1060.0, 40_000_000)]:
            progress.advance(finished) if finished else progress.tick()
        clock[0] = 1100.0
        progress.advance(20_000_000)
    assert caplog.messages == [
        "format: nothing of 80.0 MB finished yet after 00:10",
        "format: 25% of 80.0 MB, 1.00 MB/s, 01:00 left",
        "format: 75% of 80.0 MB, 1.00 MB/s, 00:20 left",
        "format: 100% of 80.0 MB, 0.80 MB/s, 00:00 left",
        "format: 80.0 MB in 01:40, 0.80 MB/s",
    ]


def test_nothing_to_do_is_no_division_by_zero(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("format", 0) as progress:
        progress.advance(0)
        progress.tick()
    assert caplog.messages == []
