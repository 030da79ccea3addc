"""The benchmark's quadratic: what K-FAC is for must show there; and how the benchmark judges a run."""

import pytest

from benchmarks.kfac_convergence import (
    SETTINGS,
    Point,
    Quadratic,
    Setting,
    averaged,
    comparisons,
    last_loss,
    reached,
    train,
)
from benchmarks.kfac_text import TextProblem
from benchmarks.optimizers import share


@pytest.mark.parametrize(("optimizer", "rate"), [("adamw", 4e-3), ("lamb", 1e-2)])
def test_on_a_badly_conditioned_quadratic_kfac_comes_far_closer_in_as_many_updates(optimizer: str, rate: float) -> None:
    kfac_rate = {"adamw": 8e-3, "lamb": 2e-2}[optimizer]
    plain = train(Quadratic(), optimizer, Setting(rate), 300)
    kfac = train(Quadratic(), f"kfac_{optimizer}", Setting(kfac_rate, 1e-4), 300)
    assert plain[0].loss == kfac[0].loss
    assert last_loss(kfac) < 0.5 * last_loss(plain) < 0.01 * plain[0].loss


def test_lamb_is_compared_and_not_adam_which_it_is_without_weight_decay() -> None:
    lamb, adamw = (train(Quadratic(), name, Setting(1e-3), 20)[-1].loss for name in ("lamb", "adamw"))
    assert abs(lamb - adamw) > 0.1 * adamw
    assert Quadratic.weight_decay > 0
    assert TextProblem.weight_decay > 0


def test_every_optimizer_of_a_problem_is_tuned_over_as_many_settings() -> None:
    for optimizers in SETTINGS.values():
        assert len({len(settings) for settings in optimizers.values()}) == 1
        assert all(len(set(settings)) == len(settings) for settings in optimizers.values())


def test_a_run_is_judged_by_its_last_three_evaluations_and_one_that_diverged_by_none() -> None:
    points = [Point(5 * i, loss, 1.0 * i, 0.5 * i) for i, loss in enumerate((8.0, 4.0, 2.0, 1.0, 3.0))]
    assert last_loss(points) == 2.0
    assert reached(points, 2.5) == points[2]
    assert reached(points, 0.5) is None
    assert last_loss([*points, Point(25, float("nan"), 5.0, 2.5)]) == float("inf")


def test_shares_count_passes_by_micro_batch_and_the_rest_once() -> None:
    parts = {"passes": 2.0, "optimizer": 1.0, "solving": 0.5, "watching": 3.0, "averaging": 1.0, "decomposing": 50.0}
    assert share(parts, 4.0, 10, 100) == pytest.approx((0.5 + (4 * 3 + 1) / 10 + 50 / 100) / (4 * 2 + 1))


def test_seeds_are_averaged_as_far_as_all_went_and_a_pair_is_judged_by_what_both_reach() -> None:
    runs = [[Point(5 * i, loss, 1.0 * i, 0.0) for i, loss in enumerate(losses)] for losses in ((8, 4, 2), (8, 2, 1, 1))]
    mean = averaged(runs)
    assert [point.loss for point in mean] == [8, 3, 1.5]
    slower = [Point(0, 8.0, 0.0, 0.0), *(Point(5 * i, 2.0, 1.0 * i, 0.0) for i in (1, 2, 3, 4))]
    quicker = [Point(0, 8.0, 0.0, 0.0), *(Point(5 * i, 1.0, 1.0 * i, 0.0) for i in (1, 2, 3, 4))]
    rows = list(comparisons({"adamw": (Setting(1.0), slower), "kfac_adamw": (Setting(1.0, 0.1), quicker)}))
    assert [(row["best"], row["target"], row["update"]) for row in rows] == [("adamw", 2.0, 5), ("kfac_adamw", 2.0, 5)]
    assert list(comparisons({"adamw": (Setting(1.0), slower)})) == []
