"""Sound doses: the strongest within the limit on KL, unless texts tell otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from steerlab.core.results import defined
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.calibration.curve import Cost, FreshCost
from steerlab.evaluation.calibration.side_effects import SideEffects

Range = tuple[float, float]
"""The strongest doses on both sides: the one below zero, or 0, then the one above."""


@dataclass
class SoundDoses:
    """The sound doses of a vector of one layer.

    costs: the side effects of every dose, as far as they were measured. fresh: those on texts, of
    the doses that were tried.
    """

    effects: SideEffects
    vector: SteeringVector
    doses: Sequence[float]
    costs: dict[float, Cost] = field(default_factory=dict)
    fresh: tuple[FreshCost, ...] = ()

    def run(self) -> Range:
        """Measure the KL of all doses, and write texts from the strongest within its limit down.

        Texts take most of the time, and only the strongest sound dose of each side needs them.
        """
        signed = [sign * d for d in self.doses for sign in (1, -1)]
        kl = self.effects.kl([*map(self.setting, signed)], 5)
        self.costs = {d: Cost(kl=nats) for d, nats in zip(signed, kl, strict=True)}
        safe = self.confirmed((self.reach(-1), self.reach(1)))
        for cost in self.fresh:
            written = defined(cost.fluency.mean), defined(cost.distinct.mean)
            self.costs[cost.dose] = Cost(self.costs[cost.dose].kl, *written)
        return safe

    def reach(self, sign: int) -> float:
        """The strongest dose of a side up to which the KL is within its limit; 0 for none."""
        end = 0.0
        for d in self.doses:
            kl = self.costs[sign * d].kl
            if kl is None or kl > self.effects.limits.kl:
                break
            end = sign * d
        return end

    def confirmed(self, safe: Range) -> Range:
        """The safe doses after a check on fresh texts.

        A dose whose interval reaches beyond a limit gives way to the next lower one. The texts
        that let a dose pass also describe it. In simulations (24 texts, log ratios normal or
        log-normal, sd 0.25 to 0.7) at most 5% of such doses are truly beyond the limit (9% where
        four doses are barely beyond it), and the fluency ratio that is stated is 2% to 5% too low.
        """
        ends, found = {-1: safe[0], 1: safe[1]}, dict[float, FreshCost]()
        while wanted := [d for d in ends.values() if d and d not in found]:
            lower = [self.setting(d) if (d := self.lower(end)) else None for end in wanted]
            made = self.effects.fresh([*map(self.setting, wanted)], lower, 20)
            found |= {d: replace(cost, dose=d) for d, cost in zip(wanted, made, strict=True)}
            for sign, end in ends.items():
                if end in found and not found[end].within(self.effects.limits):
                    ends[sign] = self.lower(end)
        self.fresh = tuple(found[d] for d in sorted(found))
        return ends[-1], ends[1]

    def lower(self, dose: float) -> float:
        """The next lower dose on the same side; 0 for none."""
        lower = max((d for d in self.doses if d < abs(dose)), default=0.0)
        return math.copysign(lower, dose) if lower else 0.0

    def setting(self, dose: float) -> Setting:
        """The vector at a dose."""
        return Setting(self.vector, self.vector.coefficient(dose))
