"""Learning-rate factors against tables worked out by hand in fractions."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_pytorch.optim.schedules import ScheduleConfig, learning_rate_factor, warmup_updates


def table(max_steps, **values):
    config = ScheduleConfig(**values)
    return [learning_rate_factor(k, max_steps=max_steps, config=config) for k in range(1, max_steps + 1)]


@pytest.mark.parametrize(
    ("max_steps", "proportion", "wanted"),
    [
        (7038, 0.2843, 2000),  # NVIDIA phase 1
        (1563, 0.128, 200),  # NVIDIA phase 2
        (10, 0.1, 1),
        (100, 0.29, 29),  # 0.29 * 100 is 28.999999999999996
        (1000, 0.57, 570),  # 569.9999999999999
        (10, 0.19, 1),
        (10, 0.0, 0),
        (10, 1.0, 10),
        (1, 0.99, 0),
    ],
)
def test_warmup_updates(max_steps, proportion, wanted):
    assert warmup_updates(max_steps, proportion) == wanted


# T = 8, W = 2, in eighths.  Poly: 1 - (k-1)/8, to the power.  Linear to 1/4: 1 - 3/4 * (k-2)/6 = 1 - (k-2)/8.
POLY = [Fraction(eighths, 8) for eighths in (4, 8, 6, 5, 4, 3, 2, 1)]
LINEAR = [Fraction(eighths, 8) for eighths in (4, 8, 7, 6, 5, 4, 3, 2)]


def test_poly_table():
    wanted = [float(f) if k < 2 else math.sqrt(f) for k, f in enumerate(POLY)]
    assert table(8, lr_decay="poly", warmup_proportion=0.25) == pytest.approx(wanted, rel=1e-15)


def test_poly_of_power_one_table():
    found = table(8, lr_decay="poly", warmup_proportion=0.25, lr_power=1.0)
    assert found == pytest.approx([float(f) for f in POLY], rel=1e-15)


def test_linear_table():
    found = table(8, lr_decay="linear", warmup_proportion=0.25, lr_end=0.25)
    assert found == pytest.approx([float(f) for f in LINEAR], rel=1e-15)


def test_cosine_table():
    # T = 6, W = 0, lr_end = 1/2: 1/2 + 1/4 * (1 + cos(k pi/6)); cos is √3/2, 1/2, 0, -1/2, -√3/2, -1.
    cosines = [math.sqrt(3) / 2, 0.5, 0.0, -0.5, -math.sqrt(3) / 2, -1.0]
    wanted = [0.5 + 0.25 * (1 + cosine) for cosine in cosines]
    found = table(6, lr_decay="cosine", warmup_proportion=0.0, lr_end=0.5)
    assert found == pytest.approx(wanted, rel=1e-14)


def test_constant_table():
    assert table(5, lr_decay="constant", warmup_proportion=0.4) == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("max_steps", "proportion", "update", "wanted"),
    [
        (7038, 0.2843, 1, 1 / 2000),
        (7038, 0.2843, 1000, 0.5),
        (7038, 0.2843, 2000, 1.0),
        (7038, 0.2843, 2001, math.sqrt(5038 / 7038)),
        (7038, 0.2843, 7038, math.sqrt(1 / 7038)),
        (1563, 0.128, 200, 1.0),
        (1563, 0.128, 201, math.sqrt(1363 / 1563)),
        (1563, 0.128, 1563, math.sqrt(1 / 1563)),
    ],
)
def test_nvidia_phases(max_steps, proportion, update, wanted):
    config = ScheduleConfig(warmup_proportion=proportion)
    assert learning_rate_factor(update, max_steps=max_steps, config=config) == pytest.approx(wanted, rel=1e-14)


def test_without_warmup_poly_begins_at_the_peak():
    assert table(4, warmup_proportion=0.0) == pytest.approx([1.0, math.sqrt(3 / 4), math.sqrt(2 / 4), 0.5], rel=1e-15)


@pytest.mark.parametrize("decay", ["poly", "linear", "cosine", "constant"])
def test_all_warmup_ends_at_the_peak(decay):
    assert table(4, lr_decay=decay, warmup_proportion=1.0) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("decay", "wanted"), [("poly", 1.0), ("linear", 0.01), ("cosine", 0.01), ("constant", 1.0)])
def test_single_update(decay, wanted):
    assert table(1, lr_decay=decay, warmup_proportion=0.0) == pytest.approx([wanted])


@pytest.mark.parametrize("update", [0, -1, 11])
def test_update_outside_the_phase_is_refused(update):
    with pytest.raises(ValueError, match="outside the phase's 1 to 10"):
        learning_rate_factor(update, max_steps=10, config=ScheduleConfig())


@given(
    max_steps=st.integers(1, 200),
    decay=st.sampled_from(["poly", "linear", "cosine", "constant"]),
    proportion=st.floats(0, 1),
    power=st.floats(0.1, 4),
    end=st.floats(1e-3, 1),
)
def test_rate_rises_to_its_peak_then_never_rises_and_is_never_zero(max_steps, decay, proportion, power, end):
    values = {"lr_decay": decay, "warmup_proportion": proportion, "lr_power": power, "lr_end": end}
    factors = table(max_steps, **values)
    warmup = warmup_updates(max_steps, proportion)
    assert all(0 < factor <= 1 + 1e-15 for factor in factors)
    assert factors[:warmup] == sorted(set(factors[:warmup]))
    after = factors[max(warmup - 1, 0) :]
    assert all(later <= earlier + 1e-15 for earlier, later in itertools.pairwise(after))
