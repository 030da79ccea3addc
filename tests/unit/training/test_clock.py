"""The step clock on a clock of our own."""

import contextlib

import pytest

from bert_pytorch.training.clock import SessionTotals, StepClock


class FakeTime:
    """A clock that stands still until told."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds

    def passes(self, seconds):
        self.seconds += seconds


@pytest.fixture
def time():
    return FakeTime()


def test_rates_are_the_steps_own_with_the_data_wait_included(time):
    clock = StepClock(now=time)
    with clock.waiting_for_data():
        time.passes(1.0)
    time.passes(3.0)
    assert clock.finish_step(sequences=8, tokens=400) == (4.0, 1.0, 2.0, 100.0)
    time.passes(2.0)
    assert clock.finish_step(sequences=8, tokens=400) == (2.0, 0.0, 4.0, 200.0)


def test_wall_clock_between_updates_leaves_no_gap(time):
    clock = StepClock(now=time)
    clock.finish_step(1, 1)
    time.passes(0.5)  # logging after the update belongs to the next one
    with clock.waiting_for_data():
        time.passes(0.25)
    time.passes(1.0)
    assert clock.finish_step(1, 1).step_seconds == 1.75


def test_waits_of_one_step_add_up(time):
    clock = StepClock(now=time)
    for _ in range(3):
        with clock.waiting_for_data():
            time.passes(0.5)
        time.passes(1.0)
    assert clock.finish_step(1, 1)[:2] == (4.5, 1.5)


def test_evaluation_and_checkpointing_are_left_out(time):
    clock = StepClock(skipped_updates=0, now=time)
    time.passes(1.0)
    with clock.excluded():
        time.passes(60.0)
    time.passes(1.0)
    assert clock.finish_step(2, 20) == (2.0, 0.0, 1.0, 10.0)
    assert clock.totals() == SessionTotals(1, 2.0, 1.0, 10.0)


def test_what_lies_inside_an_exclusion_counts_once_and_not_as_data_wait(time):
    clock = StepClock(now=time)
    with clock.excluded():
        time.passes(10.0)
        with clock.waiting_for_data():
            time.passes(5.0)
        with clock.excluded():
            time.passes(5.0)
        time.passes(1.0)
    time.passes(2.0)
    assert clock.finish_step(2, 2)[:2] == (2.0, 0.0)


def test_an_exclusion_inside_a_data_wait_is_no_wait(time):
    clock = StepClock(now=time)
    with clock.waiting_for_data():
        time.passes(1.0)
        with clock.excluded():
            time.passes(7.0)
    assert clock.finish_step(2, 2)[:2] == (1.0, 1.0)


def test_an_exception_inside_leaves_the_clock_right(time):
    clock = StepClock(now=time)
    with contextlib.suppress(KeyError), clock.excluded():
        time.passes(5.0)
        raise KeyError
    with contextlib.suppress(KeyError), clock.waiting_for_data():
        time.passes(1.0)
        raise KeyError
    assert clock.finish_step(2, 2)[:2] == (1.0, 1.0)


def test_totals_leave_out_the_first_updates_and_the_unfinished_one(time):
    clock = StepClock(skipped_updates=2, now=time)
    for seconds in (90.0, 30.0, 2.0, 3.0):
        time.passes(seconds)
        clock.finish_step(sequences=10, tokens=1000)
    time.passes(50.0)
    assert clock.totals() == SessionTotals(
        updates=2, train_seconds=5.0, sequences_per_second=4.0, tokens_per_second=400.0
    )


def test_totals_of_a_session_too_short_to_measure_have_no_rate(time):
    clock = StepClock(now=time)
    time.passes(3.0)
    clock.finish_step(1, 1)
    assert clock.totals() == SessionTotals(0, 0.0, None, None)


def test_restart_forgets_what_has_passed(time):
    clock = StepClock(now=time)
    with clock.waiting_for_data():
        time.passes(100.0)
    clock.restart()
    time.passes(1.0)
    assert clock.finish_step(1, 1)[:2] == (1.0, 0.0)


def test_rates_are_finite_where_the_clock_did_not_tick(time):
    rates = StepClock(now=time).finish_step(4, 40)
    assert rates.step_seconds > 0
    assert 0 < rates.sequences_per_second < rates.tokens_per_second < float("inf")
