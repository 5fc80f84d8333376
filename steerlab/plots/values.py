"""The content of plots as plain values, for the terminal, matplotlib and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from steerlab.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.vector import SteeringVector
    from steerlab.evaluation.calibration.curve import Controls, Point

_BEYOND = 0.4  # how far intervals may extend the plot, in heights of the means and controls


@dataclass(frozen=True)
class DoseResponse:
    """Effect over signed dose at one layer.

    points: from the most negative dose to the most positive, the baseline among them.
    unit: of the effect, as an axis label ("log-odds (nats)"). safe: the doses between which
        text stays sound.
    chosen: the operating dose. None for both if no dose works. controls: number of random
        directions.
    """

    name: str
    unit: str
    points: tuple[Point, ...]
    layer: int | None = None
    safe: tuple[float, float] | None = None
    chosen: float | None = None
    controls: int = 0

    @property
    def window(self) -> tuple[float, float]:
        """The ends of the effect axis: they hold 0, all means and all controls.

        Intervals far beyond these, as few items give, are cut off.
        """
        ends = [end for p in self.points for end in (p.effect.low, p.effect.high)]
        inner = [0.0, *(p.effect.mean for p in self.points)]
        inner += [end for p in self.points for end in p.controls.reach]
        low, high = limits(inner, 0.0)
        room = _BEYOND * (high - low)
        known = [min(max(end, low - room), high + room) for end in ends if math.isfinite(end)]
        return limits([low, high, *known], 0.04)

    @property
    def at_chosen(self) -> Point | None:
        """The point of the operating dose; None if it was not measured."""
        if self.chosen is None:
            return None
        return next((p for p in self.points if math.isclose(p.dose, self.chosen)), None)


@dataclass(frozen=True)
class HeatGrid:
    """A number for each layer and strength.

    values: a row for each layer; None where no text was written, NaN where undefined.
    centre: the baseline's value, at which colours diverge; None for colours of one hue.
    columns: the strengths as text; strength: their kind, "dose" or "coefficient".
    digits: decimals shown. signed: whether values are shown with their sign.
    """

    title: str
    unit: str
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    centre: float | None = None
    strength: str = "dose"
    digits: int = 2
    signed: bool = False

    @cached_property
    def reach(self) -> float:
        """The range of the colours: the largest distance from the centre, or 1."""
        known = self.known
        if self.centre is None:
            return max(known) - min(known) if known else 1.0
        return max((abs(x - self.centre) for x in known), default=0.0) or 1.0

    @property
    def ends(self) -> tuple[float, float]:
        """The values that have the coolest and the warmest colour."""
        if self.centre is not None:
            return self.centre - self.reach, self.centre + self.reach
        return (min(self.known), max(self.known)) if self.known else (0.0, 1.0)

    @cached_property
    def known(self) -> list[float]:
        """The finite values."""
        return [x for row in self.values for x in row if x is not None and math.isfinite(x)]

    def share(self, value: float | None) -> float:
        """A value's colour: -1 (cool) to 1 (warm); 0 at the baseline, or at the smallest value.

        NaN for a value that is unknown.
        """
        if value is None or not math.isfinite(value):
            return math.nan
        if self.centre is not None:
            return max(-1.0, min(1.0, (value - self.centre) / self.reach))
        return (value - min(self.known)) / self.reach if self.reach else 0.0

    def shown(self, value: float | None) -> str:
        """A value as text; "·" for None, "–" for NaN."""
        if value is None:
            return "·"
        sign = "+" if self.signed else ""
        return f"{value:{sign}.{self.digits}f}" if math.isfinite(value) else "–"


@dataclass(frozen=True)
class Profile:
    """A quantity by layer. band: its 95% intervals, or empty. level: its value by chance."""

    name: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    band: tuple[tuple[float, float], ...] = ()
    level: float | None = None


@dataclass(frozen=True)
class StyleEffect:
    """The signed range of a metric on one style of text, and its controls.

    control: of random directions. shuffled: the signed range of shuffled labels. None without
        one. finding: a `Finding` in words.
    """

    style: str
    effect: Estimate
    control: Controls | None = None
    shuffled: float | None = None
    finding: str = ""


@dataclass(frozen=True)
class EffectPanel:
    """One metric's effects on several styles of text."""

    name: str
    metric: str
    rows: tuple[StyleEffect, ...]


CHANCE = {"separability": 0.5, "agreement": 0.5, "pairwise_cosine": 0.0}
"""The value of each diagnostic for a direction without meaning."""

LEGENDS = {
    "agreement": "share of pairs whose difference points along the mean of the others",
    "pairwise_cosine": "mean cosine between the differences of two pairs",
    "separability": "how well projections tell positive from negative prompts (AUC)",
    "split_half": "cosine of the mean differences of two random halves of the pairs",
}
"""What each diagnostic of contrast pairs means, in one line."""


def legends(names: Iterable[str]) -> list[str]:
    """Lines that explain the diagnostics among these names."""
    return [f"{x.replace('_', ' ')}: {LEGENDS[x]}" for x in names if x in LEGENDS]


def profiles(record: Record) -> tuple[Profile, ...]:
    """Norm, dose of coefficient 1 and diagnostics of a stored vector by layer, where known."""
    norms = {facts.layer: facts.norm for facts in record.layers}
    return _profiles(norms, record.doses(), {x.layer: x.diagnostics for x in record.layers})


def vector_profiles(vector: SteeringVector) -> tuple[Profile, ...]:
    """The same of a vector that need not be stored."""
    return _profiles(vector.norms(), vector.doses(), vector.diagnostics)


def _profiles(
    norms: Mapping[int, float],
    doses: Mapping[int, float | None],
    diagnostics: Mapping[int, Mapping[str, float]],
) -> tuple[Profile, ...]:
    names = sorted({name for figures in diagnostics.values() for name in figures})
    found: dict[str, Mapping[int, float | None]] = {
        "norm": norms,
        "dose of coefficient 1": doses,
        **{name: {b: x.get(name) for b, x in diagnostics.items()} for name in names},
    }
    made = []
    for name, by_layer in found.items():
        known = {b: value for b, value in by_layer.items() if value is not None}
        label, level = name.replace("_", " "), CHANCE.get(name)
        made.append(Profile(label, tuple(known), tuple(known.values()), (), level))
    return tuple(profile for profile in made if profile.layers)


def limits(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """The ends of an axis that holds all finite values, with a margin on both sides."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return low - room, high + room
