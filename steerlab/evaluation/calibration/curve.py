"""The result of a calibration as plain values, for tables, plots and reports; needs no model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from steerlab.core.display import count
from steerlab.core.notation import layers_text, span
from steerlab.core.recipe import build, mapping
from steerlab.core.results import Calibration
from steerlab.evaluation.guarantee import at_most, moved
from steerlab.evaluation.statistics import Estimate, enough


@dataclass(frozen=True)
class Limits:
    """The side effects that a dose may have on neutral prompts; a dose within them is sound.

    fluency: perplexity of the steered texts by the unsteered model, relative to the baseline.
    kl: mean KL(p_s‖p) of the next token, in nats. At half a nat the unsteered model gives a
        token e^-0.5 = 0.6 of its steered probability: a little beyond the fluency limit for
        whole texts (ln 1.5 = 0.41), since a wanted change shows in the next token too.
    distinct: distinct pairs of tokens relative to the baseline; low in texts that loop.
    """

    fluency: float = 1.5
    kl: float = 0.5
    distinct: float = 0.9


@dataclass(frozen=True)
class Cost:
    """The side effects of a dose on neutral prompts; None where not measured or undefined.

    Texts are written from the strongest dose within the limit on `kl` down, until one is sound.
    longest_run: of earlier calibrations, tokens in the longest run that a text repeats.
    """

    kl: float | None = None
    fluency: float | None = None
    distinct: float | None = None
    longest_run: float | None = None


@dataclass(frozen=True)
class FreshCost:
    """The side effects of a dose on texts after fresh prompts, one text each.

    fluency, distinct: as in `Cost`, with 95% intervals over the texts. loose: the share of texts
    whose own perplexity ratio is beyond the limit, with bounds.
    """

    dose: float
    fluency: Estimate
    distinct: Estimate
    loose: Estimate

    def within(self, limits: Limits) -> bool:
        """Whether the whole of both intervals is within the limits."""
        return self.fluency.high <= limits.fluency and self.distinct.low >= limits.distinct

    def beyond(self, limits: Limits) -> bool:
        """Whether intervals half as long, as four times as many texts have, would not be within."""
        fluency = math.sqrt(self.fluency.mean * self.fluency.high)
        distinct = (self.distinct.mean + self.distinct.low) / 2
        return fluency > limits.fluency or distinct < limits.distinct


@dataclass(frozen=True)
class Controls:
    """Mean, standard deviation and number of the same effects of random directions."""

    mean: float
    sd: float
    n: int

    @property
    def reach(self) -> tuple[float, float]:
        """The mean less and plus two standard deviations; NaN where undefined."""
        return self.mean - 2 * self.sd, self.mean + 2 * self.sd


@dataclass(frozen=True)
class Point:
    """One signed dose of the curve.

    coefficient: of the whole vector at the curve's layer.
    effect: change of the items from their unsteered values, each under a vector made without
        it. z: of the effect among its controls; None if they do not scatter.
    """

    dose: float
    coefficient: float
    effect: Estimate
    controls: Controls
    z: float | None
    cost: Cost
    sound: bool


@dataclass(frozen=True)
class LayerEffect:
    """The signed range S(+d) - S(-d) at one layer, at the dose used to compare layers.

    kl: of the next token of neutral prompts, the larger one of both signs; None in earlier ones.
    """

    layer: int
    effect: Estimate
    kl: float | None = None


@dataclass(frozen=True)
class Fold:
    """Items, and the layer and dose that were chosen without looking at them."""

    items: tuple[int, ...]
    layer: int
    dose: float


@dataclass(frozen=True)
class HeldOutEffect:
    """The effect on items that neither the vector nor the choice of layer and dose has seen.

    effect: the signed range S(+d) - S(-d), which damage alone does not move; plus, minus: its
        two sides, relative to the unsteered items. z: of the range among random directions;
        critical: the z that counts as more than chance for so many layers and controls.
    values: the range of each item, in the order of the folds; empty in earlier calibrations.
    plus_controls, minus_controls: the two sides of the wider controls; None in earlier ones.
    shuffled: of vectors of the same pairs, half of them swapped; None for a vector that has no or
        too few pairs. Where they scatter more than random directions, z is among them.
    """

    effect: Estimate
    plus: Estimate
    minus: Estimate
    controls: Controls
    z: float | None
    critical: float
    folds: tuple[Fold, ...]
    values: tuple[float, ...] = ()
    plus_controls: Controls | None = None
    minus_controls: Controls | None = None
    shuffled: Controls | None = None

    @property
    def wider(self) -> Controls:
        """The controls that scatter more: random directions, or shuffled labels."""
        return wider(self.controls, self.shuffled)

    def shows(self, sign: int) -> bool:
        """Whether one side moves the items its way: by its interval, and beyond its controls."""
        effect, controls = (
            (self.plus, self.plus_controls) if sign > 0 else (self.minus, self.minus_controls)
        )
        end = effect.low if sign > 0 else -effect.high
        if controls is None or not end > 0:
            return False
        return sign * (effect.mean - controls.mean) >= self.critical * controls.sd

    @property
    def beats_chance(self) -> bool:
        """Whether both z and the interval say that the items move the vector's way."""
        return self.z is not None and self.z >= self.critical and self.effect.low > 0


@dataclass(frozen=True)
class Curve:
    """A dose-response at one layer, how that layer was chosen, and the held-out effect.

    measure: what an effect is: "propensity" (in nats) or the name of a metric.
    points: by dose, from the most negative. layers: those compared, all at `profile_dose`.
    plus, minus: the sound dose with the largest effect on either side; None without one.
    crossed: whether the items are the vector's own pairs, each scored without itself.
    reason: why the vector is not shown to work; empty if it is.
    point: the effect at `layer` and the chosen dose themselves, which all items chose. None in
        earlier calibrations.
    fresh: the side effects of the strongest sound doses on the texts that decided, and of those
        that these turned down; see `SoundDoses`. Empty in earlier calibrations.
    keys: of the items, if they were given; see `more.keys`. added: the signed range of each item
        that came later, at the operating point.
    unsound: layers that came before this one, but have no sound dose.
    candidates: the layers to choose from; empty in earlier calibrations.
    """

    measure: str
    layer: int
    points: tuple[Point, ...]
    layers: tuple[LayerEffect, ...]
    profile_dose: float
    held: HeldOutEffect
    plus: float | None
    minus: float | None
    limits: Limits
    items: int
    crossed: bool
    seed: int
    reason: str
    versions: Mapping[str, str]
    point: HeldOutEffect | None = None
    fresh: tuple[FreshCost, ...] = ()
    keys: tuple[str, ...] = ()
    added: tuple[float, ...] = ()
    unsound: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The curve as JSON values; None for NaN."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return data

    @classmethod
    def of(cls, calibration: Calibration) -> Curve:
        """The curve in a calibration's data; raises CorruptPayload if it holds none."""
        return build(cls, mapping(calibration.data, "calibration"), "calibration", nan=True)


def verdict(calibration: Calibration) -> str:
    """What a calibration found, as a sentence without its subject."""
    return "; ".join(findings(calibration))


def findings(calibration: Calibration) -> list[str]:
    """The parts of `verdict`: what it says of the vector, then the evidence, one fact each."""
    curve = Curve.of(calibration)
    larger = f"no dose is sound at {span(curve.unsound)}, where the effect is larger"
    passed_over = [larger] if curve.unsound else []
    if not calibration.works or calibration.safe is None:
        return [f"is not shown to work: {curve.reason}", *passed_over]
    low, high = calibration.safe
    parts = [f"works: {calibration.at}{_checked(curve)}"]
    if curve.point is not None:
        if not curve.point.beats_chance:
            parts[0] += ", by the held-out range: the effect at this point itself is not shown"
        elif not curve.point.shows(1 if (calibration.dose or 0) > 0 else -1):
            parts[0] += ", in the range from minus to plus: this dose alone is not shown"
        parts.append(f"range at that point {_ranged(curve.point)}")
        parts += [side(calibration, curve.point, sign) for sign in (1, -1)]
    parts += passed_over
    parts.append(f"held-out range, layer and dose chosen without its items, {_ranged(curve.held)}")
    parts[-1] += lacking(curve.held)
    later = f", {len(curve.added)} of them added later" if curve.added else ""
    parts += [
        moved((*curve.held.values, *curve.added)) + later,
        _elsewhere(curve),
        *(_loose(f) for f in curve.fresh if f.dose in (low, high)),
    ]
    return [part for part in parts if part]


def _elsewhere(curve: Curve) -> str:
    """How many held-out items were measured at other layers than the one that is named."""
    apart = [fold for fold in curve.held.folds if fold.layer != curve.layer]
    if not apart:
        return ""
    layers = sorted({fold.layer for fold in apart})
    few, every = (sum(len(fold.items) for fold in some) for some in (apart, curve.held.folds))
    items = f"{few} of {count(every, 'held-out item')}"
    return f"{items} measured at {layers_text(layers)}: no text was checked there"


def _checked(curve: Curve) -> str:
    """On how many texts the safe doses were checked; those turned down early had fewer."""
    most = max((cost.loose.n for cost in curve.fresh), default=0)
    return f" (checked on {most} fresh texts each)" if most else ""


def _loose(found: FreshCost) -> str:
    done = f"fresh texts lost fluency at dose {found.dose:+.2f}"
    return at_most(found.loose, done, "of such texts do")


def side(calibration: Calibration, point: HeldOutEffect, sign: int) -> str:
    """One side of the operating point, with interval and control, and its word.

    "works" if it is shown and safe, "unsafe" if its dose is not, else "not shown".
    """
    dose = sign * abs(calibration.dose or 0.0)
    low, high = calibration.safe or (0.0, 0.0)
    word = "works" if point.shows(sign) else "not shown"
    word = word if low <= dose <= high else "unsafe"
    effect, controls = (
        (point.plus, point.plus_controls) if sign > 0 else (point.minus, point.minus_controls)
    )
    control = "" if controls is None else f", control {controls.mean:+.2f} ± {controls.sd:.2f}"
    return f"{dose:+.2f}: {word}, {_interval(effect)}{control}"


def _ranged(found: HeldOutEffect) -> str:
    """A signed range with its interval, and its z among its controls."""
    shuffled = found.shuffled is not None and found.wider is found.shuffled
    against = f"{found.wider.n} {'shuffled-label vectors' if shuffled else 'random directions'}"
    return f"{_interval(found.effect)}, z {shown_z(found.z)} against {against}"


def lacking(held: HeldOutEffect) -> str:
    """How many items would do, if those of a held-out effect say too little; else empty."""
    needed = enough(held.values)
    if not needed:
        return ""
    return (
        f" (too few items: {held.effect.n} leave the interval wider than the effect, about "
        f"{needed} would do; add contrast pairs, or give --items)"
    )


def overflow(costs: Mapping[float, Cost]) -> str:
    """The reason if not even the smallest dose leaves the model's logits finite; else empty."""
    if any(cost.kl is not None for cost in costs.values()):
        return ""
    least = min(map(abs, costs))
    return f"the model's logits overflow at every dose, even at ±{least:g}: try smaller --doses"


def why_not(held: HeldOutEffect, safe: tuple[float, float]) -> str:
    """Why a vector is not shown to work, or not safely; empty if it is.

    A vector without meaning may seem to move its own pairs the wrong way, since each is scored
    by the others; so a negative z shows no more than that nothing is shown.
    """
    if safe == (0.0, 0.0):
        return "every dose has side effects beyond the limits on neutral text"
    if held.beats_chance:
        return ""
    if held.wider.sd == 0 and held.effect.mean == 0:
        return (
            "neither the vector nor any control moves an item: nothing can be shown with these "
            "items, or this metric"
        )
    z, needed = shown_z(held.z), f"{held.critical:.1f}"
    if held.z is None or held.z < held.critical:
        return f"no dose beats its control (held-out z {z}, needed {needed}){lacking(held)}"
    low, high = held.effect.low, held.effect.high
    return (
        f"no dose beats its control on every kind of item: z is {z}, but the 95% interval of the "
        f"held-out effect, {low:+.2f} to {high:+.2f}, includes zero"
        f"{lacking(held) or ': more contrast pairs, or items of --items, narrow it'}"
    )


def _interval(found: Estimate) -> str:
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def shown_z(z: float | None) -> str:
    """A z with one decimal; "-" for None."""
    return "-" if z is None else f"{z:+.1f}"


def widened(estimate: Estimate, factor: float) -> Estimate:
    """An estimate whose interval extends farther from its mean by a factor, on each side."""
    low, high = (
        estimate.mean + factor * (end - estimate.mean) for end in (estimate.low, estimate.high)
    )
    return Estimate(estimate.mean, low, high, estimate.n)


def wider(random: Controls, shuffled: Controls | None) -> Controls:
    """The one of two controls with the larger standard deviation."""
    return shuffled if shuffled is not None and shuffled.sd > random.sd else random


def controls_of(values: Sequence[float]) -> Controls:
    """Mean, standard deviation and number of the effects of random directions, without NaN."""
    found = [value for value in values if not math.isnan(value)]
    n = len(found)
    mean = math.fsum(found) / n if n else math.nan
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in found) / (n - 1)) if n > 1 else math.nan
    return Controls(mean, sd, n)
