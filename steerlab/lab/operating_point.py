"""Where and how strongly a vector is used when not everything is said: one answer for all doors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from steerlab.core.display import signed_dose
from steerlab.core.results import Calibration
from steerlab.core.vector import SteeringVector

_ROUNDING = 1e-9


class OperatingPoint(NamedTuple):
    """A vector at its layers, and its coefficient there.

    calibration: the one that chose both; None if the layers were given, or none was found.
    """

    vector: SteeringVector
    coefficient: float
    calibration: Calibration | None = None


def beyond_safe(calibration: Calibration | None, layers: Sequence[int], dose: float | None) -> str:
    """What to say of a dose outside the range that a calibration found safe; empty inside it.

    layers: where the vector acts; a calibration knows the range of its own layer alone.
    """
    if calibration is None or calibration.safe is None or dose is None:
        return ""
    low, high = calibration.safe
    if tuple(layers) != (calibration.layer,) or low - _ROUNDING <= dose <= high + _ROUNDING:
        return ""
    return (
        f"dose {signed_dose(dose)} is outside the safe range, {signed_dose(low)} to "
        f"{signed_dose(high)} by calibration: texts may break"
    )
