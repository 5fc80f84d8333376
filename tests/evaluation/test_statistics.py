"""Intervals that are honest at small n, slopes, and scores against controls."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.errors import BadOption
from steerlab.evaluation.statistics import (
    Estimate,
    _student_t,
    enough,
    estimate,
    share,
    steerability,
    z_score,
)

NULLS: dict[str, Callable[..., np.ndarray]] = {  # each of mean 0
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1,
    "heavy": lambda rng, shape: rng.standard_t(3, size=shape),
}


def excludes_zero(found):
    """Whether the whole interval lies on one side of zero."""
    return found.low > 0 or found.high < 0


@pytest.mark.parametrize("n", [4, 8, 20, pytest.param(60, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("null", NULLS)
def test_an_interval_excludes_a_true_zero_in_two_to_nine_percent(null, n):
    samples = NULLS[null](np.random.default_rng(n), (1000, n))
    wrong = np.mean([excludes_zero(estimate(sample)) for sample in samples])
    assert 0.02 <= wrong <= 0.09


def test_two_hundred_null_vectors():
    """The figure itself: 20 items each, their differences neither normal nor alike in size."""
    rng = np.random.default_rng(0)
    nulls = rng.gamma(2.0, size=(200, 20)) * rng.choice([-1, 1], size=(200, 20))
    wrong = np.mean([excludes_zero(estimate(sample)) for sample in nulls])
    assert 0.02 <= wrong <= 0.09


@pytest.mark.parametrize("n", [2, 3])
def test_two_or_three_values_have_students_interval(n):
    samples = np.random.default_rng(n).standard_normal((2000, n))
    wrong = np.mean([excludes_zero(estimate(sample)) for sample in samples])
    assert 0.03 <= wrong <= 0.07


@pytest.mark.parametrize(
    ("df", "table"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (10, 2.2281), (59, 2.0010)]
)
def test_students_t_is_that_of_the_tables(df, table):
    assert _student_t(df) == pytest.approx(table, abs=1e-4)


def test_one_value_has_a_mean_and_no_interval():
    single = estimate([2.0])
    assert (single.mean, single.n) == (2.0, 1)
    assert math.isnan(single.low)
    assert math.isnan(single.high)
    assert not excludes_zero(single)


def test_no_value_has_nothing():
    nothing = estimate([math.nan])
    assert nothing.n == 0
    assert math.isnan(nothing.mean)


def test_what_is_undefined_is_left_out():
    assert estimate([1, 2, math.nan, 4, 5]) == estimate([1, 2, 4, 5])


def test_equal_values_leave_no_doubt():
    assert estimate([3.0] * 6) == Estimate(3.0, 3.0, 3.0, 6)


def test_values_that_are_nearly_all_one_have_students_interval():
    hits = [0, 0, 0, 1]
    error = np.std(hits, ddof=1) / 2
    assert estimate(hits).high == pytest.approx(0.25 + 3.1824 * error, abs=1e-3)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.floats(0.1, 10))
def test_an_interval_holds_its_mean_and_follows_the_scale(values, factor):
    found, scaled = estimate(values), estimate([factor * v for v in values])
    assert found.low <= found.mean + 1e-9
    assert found.high >= found.mean - 1e-9
    if np.std(values) > 1e-3:
        assert scaled.high - scaled.low == pytest.approx(factor * (found.high - found.low))


def test_an_effect_is_measured_in_deviations_of_its_controls():
    controls = [0.1, -0.3, 0.2, 0.0, 0.4]
    expected = (2.0 - np.mean(controls)) / np.std(controls, ddof=1)
    assert z_score(2.0, controls) == pytest.approx(expected)
    assert z_score(2.0, [*controls, math.nan]) == pytest.approx(expected)
    assert z_score(1.0, [0.0] * 5) == math.inf
    assert z_score(0.0, [0.0] * 5) == 0
    with pytest.raises(BadOption, match="at least 5"):
        z_score(2.0, controls[:4])


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=8))
def test_a_slope_is_polyfits(values):
    coefficients = np.linspace(-1, 2, len(values))
    (found,) = steerability(coefficients, np.reshape(values, (-1, 1))).slopes
    assert found == pytest.approx(np.polyfit(coefficients, values, 1)[0], abs=1e-6)


def test_a_slope_needs_two_strengths():
    with pytest.raises(BadOption, match="two different"):
        steerability([1.0, 1.0], [[2.0], [3.0]])
    with pytest.raises(BadOption, match="3 coefficients"):
        steerability([1.0, 2.0, 3.0], [[2.0], [3.0]])


def test_items_that_go_the_other_way_are_counted():
    coefficients = [-1.0, 0.0, 1.0]
    slopes = np.array([2.0, 1.0, -0.5, 3.0])
    m = np.outer(coefficients, slopes) + np.array([5, 0, 1, 2])
    found = steerability(coefficients, m)
    assert found.slopes == pytest.approx(slopes)
    assert found.anti_steerable == 0.25
    assert found.mean.mean == pytest.approx(slopes.mean())
    m[1, 3] = math.nan
    found = steerability(coefficients, m)
    assert math.isnan(found.slopes[3])
    assert (found.anti_steerable, found.mean.n) == (pytest.approx(1 / 3), 3)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [  # beta.ppf(0.05, k, n - k + 1) and beta.ppf(0.95, k + 1, n - k) of scipy 1.17
        (18, 18, 0.8466824460, 1.0),
        (0, 24, 0.0, 0.1173461562),
        (7, 10, 0.3933757839, 0.9127355661),
        (1, 2, 0.0253205655, 0.9746794345),
        (190, 200, 0.9166648489, 0.9726257465),
    ],
)
def test_the_bounds_of_a_share_are_clopper_pearsons(hits, n, low, high):
    found = share([1] * hits + [0] * (n - hits) + [math.nan])
    assert (found.mean, found.n) == (hits / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-10)


def test_the_bounds_of_a_share_hold_in_95_of_100_simulated_cases():
    rng = np.random.default_rng(0)
    for p, n in ((0.9, 18), (0.97, 40), (0.5, 8)):
        found = [share(rng.random(n) < p) for _ in range(1000)]
        assert np.mean([f.low <= p for f in found]) >= 0.95
        assert np.mean([f.high >= p for f in found]) >= 0.95


def test_a_share_of_nothing_is_undefined():
    assert math.isnan(share([]).mean)


@pytest.mark.parametrize("seed", range(3))
def test_with_as_many_values_as_are_enough_the_interval_is_half_the_mean(seed):
    few = [5.0, 1.0, 0.2, 0.4]
    needed = enough(few)
    assert 8 < needed < 60
    rng = np.random.default_rng(seed)
    many = rng.normal(size=needed)
    many = (many - many.mean()) / many.std(ddof=1) * np.std(few, ddof=1) + np.mean(few)
    half = _student_t(needed - 1) * np.std(many, ddof=1) / needed**0.5
    assert half <= np.mean(few) / 2 < half * (needed / (needed - 1)) ** 0.5 * 1.01


@pytest.mark.parametrize(
    "values", [[], [1.0], [2.0, 2.1, 1.9, 2.0], [0.0, 1.0, -5.0, 9.0] * 2, [math.nan] * 4]
)
def test_where_items_are_enough_or_none_are_needed(values):
    assert enough(values) == 0


def test_values_around_zero_would_take_more_than_anyone_has():
    assert enough([1.0, -1.0, 1.0, -1.0]) == 1000
