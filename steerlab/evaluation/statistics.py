"""Statistics: intervals, paired differences, slopes, and scores among controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerlab.errors import BadOption

Array = NDArray[np.float64]

CONTROLS = 5
"""The smallest number of random directions to compare an effect with."""
_LEVEL = 0.95
_RESAMPLES = 2000
_BOOTSTRAPPED = range(4, 1001)  # fewer: resamples are too often constant; more: t is as good
RELIABLE = 8
"""From so many values on intervals are reliable, and the wider of the two counts."""


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval; NaN where undefined.

    n: number of values. A single value has no interval.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0


@dataclass(frozen=True)
class Steerability:
    """How a propensity depends on the coefficient (arXiv 2407.12404).

    slopes: (n_items,), NaN for an item without values. mean: over the items.
    anti_steerable: share of items with a negative slope; NaN without items.
    """

    slopes: tuple[float, ...]
    mean: Estimate
    anti_steerable: float


def means(table: ArrayLike) -> Array:
    """The mean over the last axis without NaN; NaN if nothing is left."""
    rows = np.asarray(table, dtype=np.float64)
    counts = np.count_nonzero(~np.isnan(rows), axis=-1)
    return np.asarray(np.nansum(rows, axis=-1) / np.where(counts, counts, np.nan))


def estimate(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """The mean of values, and an interval that covers the true mean in about 95 of 100 cases.

    values: any shape, one number for each independent item (average the seeds of a prompt
        first); NaN is left out.
    seed: of the resampling, so that equal values give equal intervals.

    The interval is the bootstrap-t (Efron and Tibshirani 1993, ch. 12: the mean is resampled
    together with its standard error); from 8 values on, each end is the farther one of it and
    Student's t. For 2 or 3 values, for more than 1000, and for values so alike that resamples
    degenerate, it is Student's t alone. It excludes zero in 2% to 8% of simulated null samples
    (normal, uniform, Laplace, t with 3 degrees of freedom, exponential, log-normal; n = 4, 8,
    20, 60). Student's t alone does so in up to 12% of skewed samples, the bootstrap-t alone in
    8% of heavy-tailed ones, and the percentile bootstrap and BCa at n = 4 in 20% to 26% of all.
    It covers the scatter of items only. Any fixed direction, even a random one, has a true
    effect on them that is not quite zero; `z_score` tells whether it is more than chance.
    """
    found = np.asarray(values, dtype=np.float64).ravel()
    found = found[~np.isnan(found)]
    n = len(found)
    mean = float(found.mean()) if n else math.nan
    if n < 2 or not np.isfinite(found).all():
        return Estimate(mean, n=n)
    error = float(found.std(ddof=1)) / math.sqrt(n)
    low, high = _quantiles(found, seed)
    return Estimate(mean, mean - high * error, mean - low * error, n)


def enough(values: ArrayLike) -> int:
    """About how many such values would leave an interval half as long as their mean on each side.

    0 if there are enough: 8, or fewer whose interval is shorter than twice their mean. At least
    8, from where on intervals are reliable, and at most 1000.
    """
    found = estimate(values)
    size, n = abs(found.mean), found.n
    half = max(found.high - found.mean, found.mean - found.low)
    if not 2 <= n < RELIABLE or half <= size:
        return 0
    known = np.asarray(values, dtype=np.float64)
    scatter = float(np.nanstd(known, ddof=1))
    wanted = range(RELIABLE, _BOOTSTRAPPED.stop)
    fits = (m for m in wanted if 2 * _student_t(m - 1) * scatter <= size * math.sqrt(m))
    return next(fits, wanted[-1])


def z_score(effect: float, controls: ArrayLike) -> float:
    """(effect - mean of the controls) / their standard deviation (n - 1).

    controls: the same effect of random directions with the same norm; NaN is left out.
    NaN for an effect of NaN; infinite if all controls are equal.
    Raises BadOption for fewer than 5 controls.
    """
    found = np.asarray(controls, dtype=np.float64).ravel()
    found = found[~np.isnan(found)]
    if len(found) < CONTROLS:
        raise BadOption(
            f"{len(found)} controls are too few to judge chance: use at least {CONTROLS} seeds"
        )
    distance = float(effect - found.mean())
    spread = float(found.std(ddof=1))
    if spread == 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / spread


def critical_z(controls: int, tries: int = 1) -> float:
    """The z that the best of `tries` reaches by chance in at most 5 of 100 cases.

    controls: number of random directions. A z among them is Student's t with `controls` - 1
        degrees of freedom times sqrt(1 + 1 / controls), since a new value is compared with the
        mean of a sample.
    tries: number of layers of which the best was taken (Bonferroni).
    """
    if controls < CONTROLS:
        raise BadOption(f"{controls} controls are too few to judge chance: use {CONTROLS} or more")
    one_sided = (1 - _LEVEL) / max(tries, 1)
    return _student_t(controls - 1, 1 - 2 * one_sided) * math.sqrt(1 + 1 / controls)


def share(hits: ArrayLike) -> Estimate:
    """The share of values that are true, and its bounds (Clopper and Pearson 1934).

    hits: 1 or 0 for each item; NaN is left out. low: at least this share of such items is true,
    with 95% confidence; high: at most this share, with 95%. Each bound is one-sided.
    """
    found = np.asarray(hits, dtype=np.float64).ravel()
    found = found[~np.isnan(found)]
    n, k = len(found), int(np.count_nonzero(found))
    if not n:
        return Estimate(math.nan)
    return Estimate(k / n, _least_share(k, n), 1 - _least_share(n - k, n), n)


@cache
def _least_share(hits: int, n: int) -> float:
    """The largest p at which `hits` or more of n are 5% likely or less, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60 if hits else 0):
        middle = (low + high) / 2
        rare = _at_least(hits, n, middle) <= 1 - _LEVEL
        low, high = (middle, high) if rare else (low, middle)
    return low


def _at_least(hits: int, n: int, p: float) -> float:
    """P(X >= hits) of a binomial variable: the regularized incomplete beta I_p(hits, n-hits+1)."""
    odds = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
        for k in range(hits, n + 1)
    ]
    return math.fsum(map(math.exp, odds))


def steerability(coefficients: Sequence[float], propensities: ArrayLike) -> Steerability:
    """The slope of each item's propensity over the coefficient, and their mean.

    coefficients: (n_strengths,), or doses. propensities: (n_strengths, n_items).
    Raises BadOption for unequal lengths, or fewer than two different coefficients.
    """
    c, values = (np.asarray(x, dtype=np.float64) for x in (coefficients, propensities))
    if values.ndim != 2 or len(c) != len(values):
        raise BadOption(f"{len(c)} coefficients for values of {len(values)} strengths")
    if len(set(c.tolist())) < 2:
        raise BadOption("a slope needs at least two different coefficients")
    centred = c - c.mean()
    slopes = centred @ values / (centred @ centred)
    known = slopes[~np.isnan(slopes)]
    anti = float((known < 0).mean()) if len(known) else math.nan
    return Steerability(tuple(slopes.tolist()), estimate(slopes), anti)


def _quantiles(values: Array, seed: int) -> tuple[float, float]:
    """The bounds of (sample mean - true mean) / standard error in 95 of 100 cases."""
    n, t = len(values), _student_t(len(values) - 1)
    if n not in _BOOTSTRAPPED:
        return -t, t
    low, high = _bootstrap_t(values, seed)
    if not (math.isfinite(low) and math.isfinite(high)):
        return -t, t
    return (min(low, -t), max(high, t)) if n >= RELIABLE else (low, high)


def _bootstrap_t(values: Array, seed: int) -> tuple[float, float]:
    """Lower and upper quantile of (resample's mean - mean) / its standard error."""
    n, centred = len(values), values - values.mean()
    scale = float(np.abs(centred).max())
    if scale == 0:
        return 0.0, 0.0
    rng = np.random.default_rng(seed)
    drawn = centred[rng.integers(0, n, (_RESAMPLES, n))] / scale  # (resamples, n)
    means = drawn.mean(axis=1)
    errors = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    flat = errors < 1e-9  # a constant resample counts as infinitely far out
    ratios = np.where(flat, np.copysign(np.inf, means), means / np.where(flat, 1.0, errors))
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], method="nearest")
    return float(low), float(high)


@cache
def _student_t(df: int, level: float = _LEVEL) -> float:
    """The t for which ±t holds a share `level` of Student's distribution, by bisection."""
    low, high = 0.0, 1.0
    while _within(high, df) < level:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, df) < level else (low, middle)
    return (low + high) / 2


def _within(t: float, df: int) -> float:
    """P(|T| < t) for whole df (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(df))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = df % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1, df // 2 + 1):
        total += term
        term *= square * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
