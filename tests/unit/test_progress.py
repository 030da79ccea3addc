"""The lines that stand in for a bar."""

import logging

import pytest

from bert_pytorch import progress
from bert_pytorch.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: False, raising=False)
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
    assert caplog.messages == ["fetch: 50 % of 100.0 MB, 1.00 MB/s, about 50 s left"]


def test_without_a_total_the_amount_is_told(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with Progress("fetch", None) as shown:
        clock[0] = 20
        shown.advance(40_000_000)
    assert caplog.messages == ["fetch: 40.0 MB, 2.00 MB/s"]
