"""The judge of evaluations."""

from bert_pytorch.tracking.records import TaskEvalRow
from bert_pytorch.training.best import Best


def judged(*values: float, patience: int | None = 2) -> Best:
    best = Best("f1", patience)
    for number, value in enumerate(values, start=1):
        best.judge(TaskEvalRow(number * 10, {"f1": value, "accuracy": 1 - value}))
    return best


def test_the_highest_value_is_the_best_and_the_first_of_equals() -> None:
    best = judged(0.1, 0.5, 0.5, 0.3)
    assert (best.value, best.step, best.waited) == (0.5, 20, 2)


def test_waiting_ends_after_as_many_evaluations_as_patience_says() -> None:
    assert not judged(0.5, 0.4).gives_up
    assert judged(0.5, 0.4, 0.5).gives_up
    assert not judged(*[0.0] * 9, patience=None).gives_up


def test_a_metric_that_is_no_number_is_no_improvement() -> None:
    best = judged(float("nan"), -1.0, float("nan"))
    assert (best.value, best.step, best.waited) == (-1.0, 20, 1)


def test_a_saved_state_judges_on() -> None:
    best, other = judged(0.2, 0.1), Best("f1", 2)
    other.restore(best.state())
    assert other == best
