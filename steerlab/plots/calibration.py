"""A calibration as plots and tables: its dose-response, and the layers it compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlab.evaluation.calibration.curve import Curve, Point, shown_z, verdict
from steerlab.evaluation.statistics import Estimate
from steerlab.plots.values import DosePoint, DoseResponse, Profile

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
    points = [_dose_point(point) for point in curve.points]
    if not any(math.isclose(p.dose, 0.0) for p in points):
        points.append(DosePoint(0.0, Estimate(0.0, 0.0, 0.0, curve.items), (0.0, 0.0)))
    return DoseResponse(
        name,
        unit_of(curve),
        tuple(sorted(points, key=lambda point: point.dose)),
        curve.layer,
        calibration.safe,
        calibration.dose,
        max((point.controls.n for point in curve.points), default=0),
    )


def _dose_point(point: Point) -> DosePoint:
    control = (point.controls.mean, point.controls.sd)
    known = all(map(math.isfinite, control))
    return DosePoint(point.dose, point.effect, control if known else None, point.sound)


def layers_of(calibration: Calibration) -> Profile | None:
    """The signed range at each layer that was compared; None for a single layer."""
    curve = Curve.of(calibration)
    if len(curve.layers) < 2:
        return None
    return Profile(
        f"S(+d) − S(−d) at dose {curve.profile_dose:g}, {unit_of(curve)}",
        tuple(row.layer for row in curve.layers),
        tuple(row.effect.mean for row in curve.layers),
        tuple((row.effect.low, row.effect.high) for row in curve.layers),
        level=0.0,
    )


@dataclass(frozen=True)
class DoseRow:
    """A row of the table. chosen: whether it is the operating dose."""

    cells: tuple[str, ...]
    chosen: bool
    sound: bool


COLUMNS = ("dose", "c", "effect", "95% interval", "random, ±sd", "z", "KL", "fluency", "distinct-2")


@dataclass(frozen=True)
class CalibrationSummary:
    """A calibration as text: its verdict, how it was measured, and a row for each dose."""

    works: bool
    verdict: str
    about: str
    rows: tuple[DoseRow, ...]
    columns: tuple[str, ...] = COLUMNS


def calibration_summary(calibration: Calibration) -> CalibrationSummary:
    """The text and the table of a calibration, as on a report's page."""
    curve = Curve.of(calibration)
    held = (
        "its own pairs, each under a vector made without it" if curve.crossed else "held-out items"
    )
    about = (
        f"An effect is a change of {unit_of(curve)} on {curve.items} items: {held}. The verdict "
        "is about items that were not used to choose layer and dose. A dose is sound, and shown "
        f"in full colour, if on neutral prompts the KL is at most {curve.limits.kl:g} nats, the "
        f"perplexity at most {curve.limits.fluency:g} times the baseline's, and the share of "
        f"distinct pairs of tokens at least {curve.limits.distinct:g} of the baseline's."
    )
    rows = tuple(_row(point, calibration.dose) for point in curve.points)
    return CalibrationSummary(calibration.works, f"It {verdict(calibration)}.", about, rows)


def _row(point: Point, chosen: float | None) -> DoseRow:
    effect, control, cost = point.effect, point.controls, point.cost
    cells = (
        f"{point.dose:+.2f}",
        f"{point.coefficient:+.3g}",
        _number(effect.mean),
        f"{_number(effect.low)} to {_number(effect.high)}",
        f"{_number(control.mean)} ± {control.sd:.2f}",
        shown_z(point.z),
        *("–" if x is None else f"{x:.2f}" for x in (cost.kl, cost.fluency, cost.distinct)),
    )
    cells = tuple(cell.replace("-", "−") for cell in cells)
    return DoseRow(cells, chosen is not None and math.isclose(point.dose, chosen), point.sound)


def _number(value: float) -> str:
    return f"{value:+.2f}" if math.isfinite(value) else "–"
