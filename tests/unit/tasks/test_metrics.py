"""Metrics of sequence tasks against scikit-learn and SciPy."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.tasks import metrics

SERIES = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-5, 5), min_size=n, max_size=n) for _ in range(2)])
)


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (2, 1), (3, 2), (7, 3)])
def test_metrics_of_classes_equal_scikit_learns(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = rng.integers(0, classes, 200)
    found = np.where(rng.random(200) < 0.5, wanted, rng.integers(0, classes, 200))
    matrix = metrics.confusion_matrix(wanted, found, classes)
    assert np.array_equal(matrix, sklearn.metrics.confusion_matrix(wanted, found))
    assert metrics.accuracy(matrix) == pytest.approx(sklearn.metrics.accuracy_score(wanted, found), rel=1e-12)
    assert metrics.f1_by_class(matrix) == pytest.approx(sklearn.metrics.f1_score(wanted, found, average=None))
    assert metrics.macro_f1(matrix) == pytest.approx(sklearn.metrics.f1_score(wanted, found, average="macro"))
    assert metrics.matthews_correlation(matrix) == pytest.approx(sklearn.metrics.matthews_corrcoef(wanted, found))


def test_a_class_that_neither_occurs_nor_is_predicted_takes_no_part_in_the_mean_f1() -> None:
    wanted, found = np.array([0, 0, 2]), np.array([0, 2, 2])
    matrix = metrics.confusion_matrix(wanted, found, 4)
    assert metrics.macro_f1(matrix) == pytest.approx(sklearn.metrics.f1_score(wanted, found, average="macro"))


def test_predicting_one_class_has_no_correlation() -> None:
    matrix = metrics.confusion_matrix(np.array([0, 1, 1]), np.array([1, 1, 1]), 2)
    assert metrics.matthews_correlation(matrix) == 0.0


def test_micro_f1_equals_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    wanted, found = rng.random((100, 5)) < 0.3, rng.random((100, 5)) < 0.4
    assert metrics.micro_f1(wanted, found) == pytest.approx(sklearn.metrics.f1_score(wanted, found, average="micro"))


@given(SERIES)
def test_correlations_equal_scipys_with_many_equal_values(series: tuple[list[int], list[int]]) -> None:
    first, second = (np.array(values, np.float64) for values in series)
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert metrics.pearson(first, second) == metrics.spearman(first, second) == 0.0
        return
    assert metrics.pearson(first, second) == pytest.approx(scipy.stats.pearsonr(first, second).statistic, abs=1e-12)
    assert metrics.spearman(first, second) == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-12)
