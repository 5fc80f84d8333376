"""Conditions: a vector at both signs, and the controls that its effect has to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steerlab.core.results import Measured
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.controls import random_controls
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.statistics import CONTROLS, Estimate, estimate, means, share, z_score

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Conditions:
    """All settings of an evaluation: the baseline, the vector at +c and -c, each control at ±c.

    random: number of random directions. shuffled: of the shuffled-label vectors, which come last.
    """

    settings: tuple[Setting, ...]
    random: int
    shuffled: int

    @property
    def vector(self) -> SteeringVector:
        """The vector that is evaluated."""
        vector = self.settings[1].vector
        assert vector is not None
        return vector

    @property
    def own(self) -> tuple[Setting, ...]:
        """The baseline and the vector at both signs."""
        return self.settings[:3]


def conditions(
    vector: SteeringVector,
    coefficient: float,
    controls: int,
    shuffled: Sequence[SteeringVector] = (),
) -> Conditions:
    """The settings that measure a vector: itself, random directions, and shuffled labels."""
    steered = [vector, *random_controls(vector, range(controls)), *shuffled]
    strengths = [as_strong(v, vector, coefficient) for v in steered]
    both = [Setting(v, s * c) for v, c in zip(steered, strengths, strict=True) for s in (1, -1)]
    return Conditions((Setting(), *both), controls, len(shuffled))


def as_strong(control: SteeringVector, vector: SteeringVector, coefficient: float) -> float:
    """The coefficient that gives a control the dose of a vector.

    Controls have the norm of the vector at every layer; over several layers, directions that
    differ from one another sum to less. Without a dose, the coefficient itself.
    """
    dose = vector.dose(coefficient) if len(vector.layers) > 1 else None
    return control.coefficient(dose) if dose else coefficient


def effects(style: str, metric: str, values: ArrayLike, of: Conditions) -> list[Measured]:
    """The effects of a vector on one metric and style, and those of its controls.

    values: (n_settings, n_items) in the order of `of.settings`, NaN where undefined.
    """
    table = np.asarray(values, dtype=np.float64)
    plain, toward, away = table[:3]
    found = [
        (names.BASELINE, estimate(plain)),
        (names.TOWARD, estimate(toward - plain)),
        (names.AWAY, estimate(away - plain)),
        (names.RANGE, estimate(toward - away)),
        (names.SHARE, share(_where(toward - away, toward > away))),
        *_controls(table, of),
    ]
    return [measured(style, metric, setting, value) for setting, value in found]


def _controls(table: Array, of: Conditions) -> list[tuple[str, Estimate]]:
    size, ranges = float(means(table[1] - table[2])), means(table[3::2] - table[4::2])
    kinds = [(names.RANDOM, names.Z, ranges[: of.random])]  # (n_random,)
    if of.shuffled:
        kinds.append((names.SHUFFLED, names.Z_SHUFFLED, ranges[of.random :]))
    found = []
    for control, score, some in kinds:
        known = len(some) >= CONTROLS and not np.isnan(some).any()
        z = z_score(size, some) if known else math.nan
        found += [(control, estimate(some)), (score, Estimate(z, n=len(some)))]
    return found


def changes(style: str, metric: str, values: ArrayLike, of: Conditions) -> list[Measured]:
    """A side effect: the baseline, the change at either sign, and that of random directions.

    values: (n_settings, n_items); three rows have no controls.
    """
    table = np.asarray(values, dtype=np.float64)
    found = [
        (names.BASELINE, estimate(table[0])),
        (names.TOWARD, estimate(table[1] - table[0])),
        (names.AWAY, estimate(table[2] - table[0])),
    ]
    if len(table) > 3:
        found.append((names.RANDOM, estimate(_randoms(table, of) - means(table[:1]))))
    return [measured(style, metric, setting, value) for setting, value in found]


def ratios(style: str, metric: str, logs: ArrayLike, of: Conditions) -> list[Measured]:
    """A side effect as a ratio to the baseline: geometric means over items.

    logs: natural logarithms of the ratios, (n_settings - 1, n_items): without the baseline.
        Two rows have no controls.
    """
    table = np.asarray(logs, dtype=np.float64)
    whole = np.vstack([np.zeros_like(table[:1]), table])  # the log of the baseline's own ratio
    found = changes(style, metric, whole, of)
    return [_exp(value) for value in found if value.setting != names.BASELINE]


def shares(style: str, metric: str, hits: ArrayLike, known: ArrayLike) -> list[Measured]:
    """The share of items that are hit at either sign, with bounds.

    hits: (2, n_items), at +c and -c. known: (n_items,), the items that count.
    """
    rows = np.asarray(hits, dtype=np.float64)[:, np.asarray(known, dtype=bool)]
    return [
        measured(style, metric, setting, share(row))
        for setting, row in zip((names.TOWARD, names.AWAY), rows, strict=True)
    ]


def _where(values: Array, hits: NDArray[np.bool_]) -> Array:
    """1 and 0 for what is hit and what is not; NaN where there is no value."""
    return np.where(np.isnan(values), np.nan, hits)


def weighted(losses: ArrayLike, weights: ArrayLike) -> Array:
    """Values whose plain mean is the weighted mean, with its (linearised) scatter.

    losses: means by item, weights: (n_items,), such as numbers of tokens. Returns (n_items,).
    """
    values, sizes = (np.asarray(x, dtype=np.float64) for x in (losses, weights))
    whole = float((values * sizes).sum() / sizes.sum()) if sizes.sum() else math.nan
    return whole + (values - whole) * sizes / (sizes.mean() if sizes.sum() else math.nan)


def measured(style: str, metric: str, setting: str, value: Estimate) -> Measured:
    """An estimate by style, metric and setting."""
    return Measured(style, metric, setting, value.mean, value.low, value.high, value.n)


def _randoms(table: Array, of: Conditions) -> Array:
    """The mean of each random direction over both signs: (n_random,)."""
    rows = means(table[3 : 3 + 2 * of.random])
    return np.asarray(rows.reshape(-1, 2).mean(axis=1))


def _exp(value: Measured) -> Measured:
    ends = (value.estimate, value.low, value.high)
    with np.errstate(over="ignore"):
        mean, low, high = (None if x is None else float(np.exp(x)) for x in ends)
    return replace(value, estimate=mean, low=low, high=high)
