"""Setting: one way to steer, which sweeps compare and metrics value. Needs no model."""

from __future__ import annotations

from dataclasses import dataclass, field

from steerlab.core.vector import SteeringVector


@dataclass(frozen=True)
class Setting:
    """One way to steer: a vector at a strength; vector None is the baseline.

    label: what to call the vector where it is shown; by default what it calls itself.
    """

    vector: SteeringVector | None = None
    coefficient: float = 0.0
    label: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.vector is not None and not self.label:
            object.__setattr__(self, "label", str(self.vector))

    @property
    def dose(self) -> float | None:
        """Signed dose; 0 for the baseline, None where no residual norm is known."""
        if self.is_baseline or self.vector is None:
            return 0.0
        dose = self.vector.dose(self.coefficient)
        return None if dose is None else (dose if self.coefficient > 0 else -dose)

    @property
    def is_baseline(self) -> bool:
        """Whether nothing is added: no vector, a zero one, or a coefficient of 0."""
        return self.vector is None or self.coefficient == 0 or self.vector.norm == 0
