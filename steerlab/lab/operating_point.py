"""Where and how strongly a vector is used when not everything is said: one answer for all doors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from steerlab.core.display import signed_dose
from steerlab.core.results import Calibration
from steerlab.core.vector import SteeringVector

_ROUNDING = 1e-9


@dataclass(frozen=True)
class OperatingPoint:
    """A vector at its layers, and its coefficient there.

    calibration: the one that chose the layer; None if the layer was given, or none was found.
    """

    vector: SteeringVector
    coefficient: float
    calibration: Calibration | None = None

    @property
    def dose(self) -> float | None:
        """Signed; None where no residual norm is known."""
        size = self.vector.dose(self.coefficient)
        return None if size is None else math.copysign(size, self.coefficient)

    @property
    def is_as_calibrated(self) -> bool:
        """Whether both layer and coefficient are those that a calibration chose."""
        return self.calibration is not None and self.coefficient == self.calibration.coefficient


def beyond_safe(calibration: Calibration | None, layers: str, dose: float | None) -> str:
    """What to say of a dose outside the range that a calibration found safe; empty inside it.

    layers: where the vector acts, as text; a calibration knows the range of its own layer alone.
    """
    if calibration is None or calibration.safe is None or dose is None:
        return ""
    low, high = calibration.safe
    if layers != str(calibration.layer) or low - _ROUNDING <= dose <= high + _ROUNDING:
        return ""
    return (
        f"dose {signed_dose(dose)} is outside the safe range, {signed_dose(low)} to "
        f"{signed_dose(high)} by calibration: texts may break"
    )
