"""Progress lines, their estimate of the end on a clock of our own, and the bar."""

import logging

import pytest

from bert_pytorch.tracking.progress import Progress, duration
from bert_pytorch.tracking.records import EndRow, EvalRow, TrainRow


def train_row(step, **values):
    row = TrainRow(
        step, 0, 6.914, 6.311, 0.603, None, None, 4.2e-3, 1.5, 96.0, 12340.4, 0.5, 0.01, None, 1.25, 96 * step, 96
    )
    return row._replace(**values)


class FakeTime:
    def __init__(self):
        self.seconds = 50.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="bert_pytorch")
    return lambda: [record.getMessage() for record in caplog.records]


def test_line_says_where_it_stands(time, lines):
    progress = Progress(first_step=0, last_step=900, bar=False, now=time)
    progress.train(train_row(1))
    assert lines() == ["step 1/900  loss 6.91  mlm 6.31  nsp 0.60  lr 4.2e-03  12,340 tokens/s"]


def test_line_without_the_next_sentence_task_has_no_nsp(time, lines):
    Progress(first_step=0, last_step=900, bar=False, now=time).train(train_row(1, nsp_loss=None))
    assert lines() == ["step 1/900  loss 6.91  mlm 6.31  lr 4.2e-03  12,340 tokens/s"]


def test_estimate_of_the_end_is_by_the_clock_since_the_first_row(time, lines):
    progress = Progress(first_step=100, last_step=900, bar=False, now=time)
    time.seconds += 500  # compiling; not part of the rate
    progress.train(train_row(101))
    time.seconds += 19 * 0.25 + 5.75  # 19 updates and an evaluation in 10.5 s
    progress.train(train_row(120))
    assert lines()[-1].endswith("12,340 tokens/s  ends in 7 min 11 s")  # 780 updates * 10.5 s / 19 = 431.05 s


def test_at_most_one_line_in_ten_seconds_besides_first_and_last(time, lines):
    progress = Progress(first_step=0, last_step=100, bar=False, now=time)
    for step in range(1, 101):
        progress.train(train_row(step))
        time.seconds += 0.5
    assert [line.split()[1] for line in lines()] == ["1/100", "21/100", "41/100", "61/100", "81/100", "100/100"]
    assert "ends in" not in lines()[-1]


def test_evaluation_and_end_are_always_told(time, lines):
    progress = Progress(first_step=0, last_step=900, bar=False, now=time)
    progress.evaluation(EvalRow(200, 5.9123, 0.1234, 0.7, 123456))
    progress.evaluation(EvalRow(200, 5.9123, 0.1234, None, 123456))
    progress.end(EndRow("session_limit", 200, 200.0, 12340.0))
    progress.end(EndRow("signal", 1, 0.0, None))
    assert lines() == [
        "step 200  held-out mlm loss 5.912  mlm accuracy 12.3%  nsp accuracy 70.0%  (123,456 masked tokens)",
        "step 200  held-out mlm loss 5.912  mlm accuracy 12.3%  (123,456 masked tokens)",
        "session limit (--steps) reached at step 200 (3 min 20 s of training, 12,340 tokens/s)",
        "stopped on request at step 1 (0 s of training)",
    ]


def test_bar_stands_where_the_run_stands(time, lines, capsys):
    progress = Progress(first_step=100, last_step=900, bar=True, now=time)
    for step in (101, 102, 110):
        progress.train(train_row(step))
    progress.close()
    drawn = capsys.readouterr().err.split("\r")
    assert "100/900" in drawn[1]
    assert "110/900" in drawn[-1]
    assert "loss 6.91, 12,340 tokens/s" in drawn[-1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86400 + 3 * 3600 + 59, "1 d 3 h"),
    ],
)
def test_durations_as_people_say_them(seconds, said):
    assert duration(seconds) == said
