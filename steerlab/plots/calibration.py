"""A calibration as plots: its dose-response, and the layers it compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from steerlab.evaluation.calibration.curve import Controls, Cost, Curve, Point
from steerlab.evaluation.statistics import Estimate
from steerlab.plots.values import DoseResponse, Profile

if TYPE_CHECKING:
    from steerlab.core.results import Calibration

LOG_ODDS = "log-odds (nats)"


def unit_of(curve: Curve) -> str:
    """The unit of an effect, as an axis label."""
    return LOG_ODDS if curve.measure == "propensity" else curve.measure


def response_of(calibration: Calibration, name: str) -> DoseResponse:
    """The dose-response of a calibration with its controls; both are 0 at dose 0.

    Raises CorruptPayload for a calibration that can't be read.
    """
    curve = Curve.of(calibration)
    points = list(curve.points)
    if not any(math.isclose(p.dose, 0.0) for p in points):
        nothing = Estimate(0.0, 0.0, 0.0, curve.items)
        points.append(Point(0.0, 0.0, nothing, Controls(0.0, 0.0, 0), None, Cost(), True))
    return DoseResponse(
        name,
        unit_of(curve),
        tuple(sorted(points, key=lambda point: point.dose)),
        curve.layer,
        calibration.safe,
        calibration.dose,
        max((point.controls.n for point in curve.points), default=0),
    )


def layers_of(calibration: Calibration) -> tuple[Profile, ...]:
    """Effect and cost at each layer that was compared: the signed range, and the KL if known.

    Empty for a single layer.
    """
    curve = Curve.of(calibration)
    if len(curve.layers) < 2:
        return ()
    effect = Profile(
        f"S(+d) − S(−d) at dose {curve.profile_dose:g}, {unit_of(curve)}",
        tuple(row.layer for row in curve.layers),
        tuple(row.effect.mean for row in curve.layers),
        tuple((row.effect.low, row.effect.high) for row in curve.layers),
        level=0.0,
    )
    known = [(row.layer, row.kl) for row in curve.layers if row.kl is not None]
    if len(known) < 2:
        return (effect,)
    layers, nats = zip(*known, strict=True)
    return effect, Profile(f"KL at dose ±{curve.profile_dose:g}, neutral prompts", layers, nats)
