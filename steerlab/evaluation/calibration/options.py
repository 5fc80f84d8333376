"""How to calibrate: doses, controls, limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from steerlab.errors import BadOption
from steerlab.evaluation.calibration.curve import Limits
from steerlab.evaluation.statistics import CONTROLS

DOSES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
PROFILE_DOSE = 0.15
"""The dose at which layers are compared: text stays sound there, and effects exceed the noise."""

CONTROL_SEEDS = 20


@dataclass(frozen=True)
class Options:
    """How to calibrate.

    doses: positive; both signs are measured. controls: random directions behind the verdict.
    seed: of the texts and of the random directions.
    """

    doses: tuple[float, ...] = DOSES
    controls: int = CONTROL_SEEDS
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    allow_other_weights: bool = False

    def __post_init__(self) -> None:
        if not self.doses or not all(0 < d < math.inf for d in self.doses):
            raise BadOption("doses must be above 0: both signs of each are measured")
        if self.controls < CONTROLS:
            raise BadOption(f"a verdict needs at least {CONTROLS} random directions")
        for name, limit in vars(self.limits).items():
            if not 0 <= limit < math.inf:
                raise BadOption(f"the limit on {name} must be 0 or more, and finite, not {limit:g}")
        if self.seed < 0:
            raise BadOption(f"the seed must be 0 or a positive whole number, not {self.seed}")
        object.__setattr__(self, "doses", tuple(sorted(set(map(float, self.doses)))))

    @property
    def compared_at(self) -> float:
        """The dose at which layers are compared: the nearest one to `PROFILE_DOSE`."""
        return min(self.doses, key=lambda d: abs(d - PROFILE_DOSE))
