"""What a picture shows, as plain values: drawn by the terminal, by matplotlib and in reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlab.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from steerlab.core.record import Record


_BEYOND = 0.4  # of the height of means and controls: what intervals may add to a picture


@dataclass(frozen=True)
class DosePoint:
    """What a signed dose does, and what random directions of the same length do.

    effect: with its 95% interval, NaN where it is not known. control: mean and standard
        deviation over random directions; None where none were measured.
    sound: whether the text is, at this dose.
    """

    dose: float
    effect: Estimate
    control: tuple[float, float] | None = None
    sound: bool = True


@dataclass(frozen=True)
class DoseResponse:
    """Effect over signed dose at one layer.

    points: from the most negative dose to the most positive. unit: of the effect, as an axis
        says it ("log-odds (nats)"). safe: the doses between which texts stay sound.
    chosen: the operating dose. None for either where nothing works. controls: how many random
        directions there were.
    """

    name: str
    unit: str
    points: tuple[DosePoint, ...]
    layer: int | None = None
    safe: tuple[float, float] | None = None
    chosen: float | None = None
    controls: int = 0

    @property
    def window(self) -> tuple[float, float]:
        """The effects that a picture shows: all means and controls, and 0.

        An interval that reaches far beyond them (few items give such) runs out of the picture.
        """
        ends = [end for p in self.points for end in (p.effect.low, p.effect.high)]
        inner = [0.0, *(p.effect.mean for p in self.points)]
        inner += [
            m + way * 2 * sd
            for p in self.points
            if p.control
            for m, sd in [p.control]
            for way in (-1, 1)
        ]
        low, high = limits(inner, 0.0)
        room = _BEYOND * (high - low)
        known = [min(max(end, low - room), high + room) for end in ends if math.isfinite(end)]
        return limits([low, high, *known], 0.04)

    @property
    def at_chosen(self) -> DosePoint | None:
        """The point of the operating dose, if it was measured."""
        if self.chosen is None:
            return None
        return next((p for p in self.points if math.isclose(p.dose, self.chosen)), None)


@dataclass(frozen=True)
class HeatGrid:
    """A number for each layer at each strength.

    values: a row a layer; None where nothing was written, NaN where undefined. centre: the
        baseline's value, where colours turn; None without one, and colours go one way.
    columns: the strengths, as they are shown; strength: what they are, "dose" or "coefficient".
    digits: decimals worth showing. signed: whether values are shown with their sign.
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

    @property
    def reach(self) -> float:
        """How far colours reach: the largest distance of a value from the centre, or 1."""
        known = self.known
        if self.centre is None:
            return max(known) - min(known) if known else 1.0
        return max((abs(x - self.centre) for x in known), default=0.0) or 1.0

    @property
    def known(self) -> list[float]:
        """The values that are numbers."""
        return [x for row in self.values for x in row if x is not None and math.isfinite(x)]

    def share(self, value: float) -> float:
        """A value's colour: -1 (all cool) to 1 (all warm), 0 at the baseline or the least."""
        if self.centre is not None:
            return max(-1.0, min(1.0, (value - self.centre) / self.reach))
        return (value - min(self.known)) / self.reach if self.reach else 0.0

    def shown(self, value: float | None) -> str:
        """A value in few characters; "·" for None, "–" for NaN."""
        if value is None:
            return "·"
        sign = "+" if self.signed else ""
        return f"{value:{sign}.{self.digits}f}" if math.isfinite(value) else "–"


@dataclass(frozen=True)
class Profile:
    """A quantity layer by layer. band: its 95% intervals, where it has any; level: of chance."""

    name: str
    layers: tuple[int, ...]
    values: tuple[float, ...]
    band: tuple[tuple[float, float], ...] = ()
    level: float | None = None


@dataclass(frozen=True)
class StyleEffect:
    """The signed range of a metric on one style of text, beside its controls.

    control: mean and standard deviation over random directions; shuffled: the same of shuffled
        labels; None where there is none. finding: what it comes to, in a word or two.
    """

    style: str
    effect: Estimate
    control: tuple[float, float] | None = None
    shuffled: float | None = None
    finding: str = ""


@dataclass(frozen=True)
class EffectPanel:
    """Whether an effect carries over to other styles of text."""

    name: str
    metric: str
    rows: tuple[StyleEffect, ...]


CHANCE = {"separability": 0.5, "agreement": 0.5, "pairwise_cosine": 0.0}
"""What a direction that says nothing would have of each diagnostic."""


def profiles(record: Record) -> tuple[Profile, ...]:
    """Norm, dose of coefficient 1 and the diagnostics of a stored vector, where known."""
    doses = record.doses()
    names = sorted({name for facts in record.layers for name in facts.diagnostics})
    layers = [facts.layer for facts in record.layers]
    found = [
        _profile("norm", layers, [facts.norm for facts in record.layers]),
        _profile("dose of coefficient 1", layers, [doses[b] for b in layers]),
        *(
            _profile(
                name.replace("_", " "),
                layers,
                [facts.diagnostics.get(name) for facts in record.layers],
                CHANCE.get(name),
            )
            for name in names
        ),
    ]
    return tuple(profile for profile in found if profile.layers)


def _profile(
    name: str, layers: Sequence[int], values: Sequence[float | None], level: float | None = None
) -> Profile:
    known = [(b, v) for b, v in zip(layers, values, strict=True) if v is not None]
    return Profile(name, tuple(b for b, _ in known), tuple(v for _, v in known), (), level)


def limits(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """The ends of an axis that holds all finite values, with some room."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    room = (high - low) * margin or abs(high) * margin or 1.0
    return low - room, high + room
