"""Sound doses: chosen by their side effects on some neutral texts, confirmed on others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.calibration.curve import Cost, FreshCost, Limits
from steerlab.evaluation.calibration.side_effects import SideEffects

Range = tuple[float, float]
"""The strongest doses on both sides: the one below zero, or 0, then the one above."""


@dataclass
class SoundDoses:
    """The sound doses of a vector of one layer.

    costs: the side effects of every dose, as far as they were measured. fresh: of the strongest
    on texts that did not choose them.
    """

    effects: SideEffects
    vector: SteeringVector
    doses: Sequence[float]
    costs: dict[float, Cost] = field(default_factory=dict)
    fresh: tuple[FreshCost, ...] = ()

    def run(self) -> Range:
        """Measure, from the strongest doses down, until both sides are known."""
        signed = [sign * d for d in self.doses for sign in (1, -1)]
        kl = self.effects.kl(self.settings(signed), 5)
        self.costs = {d: Cost(kl=nats) for d, nats in zip(signed, kl, strict=True)}
        written: set[float] = set()
        while wanted := unwritten(self.costs, self.effects.limits, written):
            found = self.effects.costs(self.settings(wanted), 10)
            for d, cost in zip(wanted, found, strict=True):
                self.costs[d] = replace(cost, kl=self.costs[d].kl)
            written |= set(wanted)
        return self.confirmed(safe_range(self.costs, self.effects.limits))

    def confirmed(self, safe: Range) -> Range:
        """The safe doses after a check on fresh texts.

        A dose whose interval reaches beyond a limit gives way to the next lower one.
        """
        ends, found = {-1: safe[0], 1: safe[1]}, dict[float, FreshCost]()
        while wanted := [d for d in ends.values() if d and d not in found]:
            made = self.effects.fresh(self.settings(wanted), 12)
            found |= {d: replace(cost, dose=d) for d, cost in zip(wanted, made, strict=True)}
            for sign, end in ends.items():
                if end in found and not found[end].within(self.effects.limits):
                    lower = [d for d in self.doses if d < abs(end)]
                    ends[sign] = sign * max(lower, default=0.0) or 0.0
        self.fresh = tuple(found[d] for d in sorted(found))
        return ends[-1], ends[1]

    def settings(self, doses: Sequence[float]) -> list[Setting]:
        """The vector at these doses."""
        return [Setting(self.vector, self.vector.coefficient(d)) for d in doses]


def safe_range(by_dose: Mapping[float, Cost], limits: Limits) -> Range:
    """The strongest sound doses, without those that a larger KL lies below; 0 for none on a side.

    The fluency and distinctness of a dose are the medians over it and its two neighbours (no
    side effects at dose 0), so that the luck of a dozen texts does not decide. A text that was
    not written, because the KL is beyond its limit, counts as the worst.
    """
    ends = [_end(by_dose, limits, sign, by_dose)[0] for sign in (-1, 1)]
    return ends[0], ends[1]


def unwritten(
    by_dose: Mapping[float, Cost], limits: Limits, written: Collection[float]
) -> list[float]:
    """The doses whose texts are still needed to tell the strongest sound ones."""
    return [d for sign in (1, -1) for d in _end(by_dose, limits, sign, written)[1]]


def _end(
    by_dose: Mapping[float, Cost],
    limits: Limits,
    sign: int,
    written: Collection[float],
) -> tuple[float, list[float]]:
    """The strongest dose of a side that may be sound, and doses whose texts have to tell."""

    def moves_little(d: float) -> bool:
        kl = by_dose[d].kl
        return kl is not None and kl <= limits.kl

    reach = [*takewhile(moves_little, sorted((d for d in by_dose if d * sign > 0), key=abs))]
    for place in range(len(reach), 0, -1):
        near = reach[max(place - 2, 0) : place + 1]
        if lacking := [d for d in near if d not in written]:
            return reach[place - 1], lacking
        row = [Cost(0.0, 1.0, 1.0), *(by_dose[d] for d in reach), Cost()]
        if _median(row[place - 1 : place + 2]).within(limits):
            return reach[place - 1], []
    return 0.0, []


def _median(costs: Sequence[Cost]) -> Cost:
    """The median of three costs, quantity by quantity; the KL, which is exact, is the middle's."""
    fluency = sorted(math.inf if c.fluency is None else c.fluency for c in costs)[1]
    distinct = sorted(-math.inf if c.distinct is None else c.distinct for c in costs)[1]
    return Cost(costs[1].kl, fluency, distinct)
