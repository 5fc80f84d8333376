"""A calibration and an evaluation as the store keeps them, made by hand."""

from __future__ import annotations

import math

from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.evaluation.calibration.curve import (
    Controls,
    Cost,
    Curve,
    Fold,
    HeldOutEffect,
    LayerEffect,
    Limits,
    Point,
)
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.statistics import Estimate

DOSES = (-0.4, -0.2, 0.2, 0.4)
SUITE = "5" * 64  # a digest


def point(
    dose: float,
    effect: Estimate,
    control: tuple[float, float] = (math.nan, math.nan),
    sound: bool = True,
) -> Point:
    """A point of a curve as far as plots show it; control: mean and sd of random directions."""
    return Point(dose, 4 * dose, effect, Controls(*control, 16), None, Cost(), sound)


def curve(measure: str = "propensity", reason: str = "", layers: tuple[int, ...] = (2, 3)) -> Curve:
    """Ten nats a dose, at layer 2."""
    points = tuple(
        Point(
            d,
            4 * d,
            Estimate(10 * d, 10 * d - 1, 10 * d + 1, 6),
            Controls(0.1, 0.5, 16),
            (10 * d - 0.1) / 0.5,
            Cost(abs(d), 1.1, 0.95, 2.0) if abs(d) < 0.3 else Cost(2.0),
            abs(d) < 0.3,
        )
        for d in DOSES
    )
    held = HeldOutEffect(
        Estimate(4.0, 3.0, 5.0, 6),
        Estimate(2.0, 1.0, 3.0, 6),
        Estimate(-2.0, -3.0, -1.0, 6),
        Controls(0.0, 0.5, 20),
        8.0,
        3.1,
        (Fold((0, 1), 2, 0.2),),
    )
    return Curve(
        measure,
        2,
        points,
        tuple(LayerEffect(b, Estimate(b, b - 0.5, b + 0.5, 6), b / 10) for b in layers),
        0.15,
        held,
        None if reason else 0.2,
        None if reason else -0.2,
        Limits(),
        6,
        True,
        0,
        reason,
        {"torch": "2"},
    )


def calibration(digest: str, **more: str) -> Calibration:
    """One that works, at layer 2 and dose 0.2; with a reason, one that does not."""
    data = curve(**more).to_json()
    if "reason" in more:
        return Calibration(digest, False, data=data)
    return Calibration(digest, True, 2, 0.2, 0.8, (-0.2, 0.2), data=data)


def evaluation(digest: str, **more: object) -> Evaluation:
    """vader generalizes to statements and not to dialogue; and what it costs."""
    values = []
    for style, effect, z in (("statements", 0.9, 4.5), ("dialogue", 0.1, 0.5)):
        for setting, found in (
            (names.BASELINE, (0.3, 0.2, 0.4)),
            (names.RANGE, (effect, effect - 0.2, effect + 0.2)),
            (names.RANDOM, (0.0, -0.1, 0.1)),
            (names.Z, (z, None, None)),
            (names.SHUFFLED, (0.05, -0.1, 0.2)),
        ):
            values.append(Measured(style, "vader", setting, *found, n=8))
        values.append(Measured(style, names.FLUENCY, names.TOWARD, 1.2, 1.0, 1.4, 8))
    data = {"layers": [2], "dose": 0.2}
    fields = {"suite": "standard", "model": "tiny", "versions": {"torch": "2"}, **more}
    return Evaluation(
        digest, suite_digest=SUITE, model_key="k", values=tuple(values), data=data, **fields
    )
