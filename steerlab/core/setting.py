"""Setting: one way to steer, which sweeps compare and metrics value. Needs no model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steerlab.core.operation import ADD, Operation
from steerlab.core.vector import SteeringVector


@dataclass(frozen=True)
class Setting:
    """One way to steer: a vector at a strength. `Setting()` is the baseline.

    vector: what is added; None for the baseline, and for settings that were read from a store.
    coefficient: multiplier of the vector; 0 for the baseline.
    label: what to call the vector where it is shown; by default what it calls itself.
    layers: where the vector acts, its own layers if it is at hand; empty for the baseline.
    strength: the dose or coefficient that was asked for; by default the coefficient.
    dose: signed; 0 for the baseline, None where no residual norm is known. Taken from the
        vector if it is at hand.
    """

    vector: SteeringVector | None = None
    coefficient: float = 0.0
    label: str = field(default="", compare=False)
    layers: tuple[int, ...] = ()
    strength: float = math.nan
    dose: float | None = field(default=None, compare=False)
    operation: Operation = ADD

    def __post_init__(self) -> None:
        if self.vector is not None:
            self._set("label", self.label or str(self.vector))
            self._set("layers", self.vector.layers)
            self._set("dose", self.vector.dose(self.coefficient))
        if math.isnan(self.strength):
            self._set("strength", self.coefficient)
        if self.is_baseline:
            self._set("dose", 0.0)
        elif self.vector is not None and self.dose is not None:
            self._set("dose", math.copysign(self.dose, self.coefficient))
        if self.dose is not None and not math.isfinite(self.dose):
            self._set("dose", None)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is added: no vector, a zero one, or a coefficient of 0."""
        blank = self.vector is not None and self.vector.norm == 0
        return not self.layers or self.coefficient == 0 or blank

    @property
    def layer(self) -> int | None:
        """The first layer that it acts on; None for the baseline."""
        return self.layers[0] if self.layers else None

    def with_vector(self, vectors: Mapping[int, SteeringVector]) -> Setting:
        """The setting with the vector of its layer; the baseline as it is."""
        return self if self.layer is None else replace(self, vector=vectors[self.layer])

    def without_vector(self) -> Setting:
        """The setting as a store keeps it: all but the vector itself."""
        return replace(self, vector=None)

    def to_json(self) -> dict[str, Any]:
        """Layer and strength as JSON values."""
        names = ("layer", "strength", "coefficient", "dose")
        return {name: getattr(self, name) for name in names}


BASELINE = Setting()


def is_front(settings: Iterable[Setting]) -> bool:
    """Whether a setting has a front vector, so that every prompt must begin with BOS."""
    return any(s.vector is not None and s.vector.scope == "front" for s in settings)


def settings_of(
    vector: SteeringVector,
    *,
    doses: Sequence[float] = (),
    coefficients: Sequence[float] = (),
    label: str = "",
) -> list[Setting]:
    """Each layer of a vector at each strength, after the baseline if a strength is 0.

    Within a layer, strengths keep the order given; doses come before coefficients.
    """
    settings = [BASELINE] if 0 in (*doses, *coefficients) else []
    for layer in vector.layers:
        at = vector[layer]
        strengths = [(d, at.coefficient(d)) for d in doses if d]
        strengths += [(c, c) for c in coefficients if c]
        settings += [Setting(at, c, label, strength=s) for s, c in strengths]
    return settings
