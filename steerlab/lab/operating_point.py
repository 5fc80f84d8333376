"""Where and how strongly a vector is used when not everything is said: one answer for all doors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from steerlab.core.display import signed_dose
from steerlab.core.recipe import kind_of
from steerlab.core.results import Calibration, keeps_layers
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector

if TYPE_CHECKING:
    from steerlab.registry import Store

_ROUNDING = 1e-3
"""Of a dose: a vector made again elsewhere has another length, by up to some 1e-6 in float32."""


class OperatingPoint(NamedTuple):
    """A vector at its layers, and its coefficient there.

    calibration: the one that chose both; None if the layers were given, or none was found. Where
        an engine runs the model, the engine makes the calibrated layer if the vector lacks it.
    """

    vector: SteeringVector
    coefficient: float
    calibration: Calibration | None = None

    def setting(self, coefficient: float, label: str) -> Setting:
        """The vector here, at a strength."""
        layer, per_coefficient = self._made_elsewhere()
        if layer is None:
            return Setting(self.vector, coefficient, label)
        return Setting(None, coefficient, label, (layer,), dose=coefficient * per_coefficient)

    def coefficient_of(self, dose: float) -> float:
        """The coefficient of a dose here."""
        layer, per_coefficient = self._made_elsewhere()
        return self.vector.coefficient(dose) if layer is None else dose / per_coefficient

    def _made_elsewhere(self) -> tuple[int | None, float]:
        """The calibrated layer that the vector lacks, and the dose of coefficient 1 there."""
        found = self.calibration
        if (
            found is None
            or found.layer in self.vector.layers
            or not (found.dose and found.coefficient)
        ):
            return None, 0.0
        return found.layer, found.dose / found.coefficient


def calibration_of(
    store: Store, vector: SteeringVector, layers: Sequence[int] | None = None
) -> Calibration | None:
    """The calibration that counts for a vector; None if there is none, or it works nowhere.

    layers: where the vector is to act. By default wherever it works, unless it keeps its layers.
    """
    if layers is not None and len(layers) > 1:
        return None  # at several layers together nothing was measured
    if layers is None and keeps_layers(kind_of(vector.recipe), str(vector.recipe)):
        layers = vector.layers
    found = store.results.calibration_of(vector.digest, *(layers or ()))
    return found if found is not None and found.works else None


def all_beyond_safe(store: Store, vector: SteeringVector, settings: Iterable[Setting]) -> list[str]:
    """`beyond_safe` of each setting of a vector, where there is something to say."""
    said = (
        beyond_safe(calibration_of(store, vector, setting.layers), setting.layers, setting.dose)
        for setting in settings
        if setting.layers
    )
    return list(dict.fromkeys(filter(None, said)))


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
