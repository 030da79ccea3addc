"""Progress: what a log shows without a terminal; figures follow from the clock and the bytes alone."""

import logging

import pytest

from bert_pytorch.corpus import progress as module
from bert_pytorch.progress import Progress


def test_lines_tell_share_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
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
