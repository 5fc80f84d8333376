"""The search of a calibration: layer and dose are chosen on some items and reported on others.

The items are dealt into folds. For each fold, layer and dose are chosen on the other folds, and
their effect is measured on the fold itself. If the items are the vector's own contrast pairs,
every item is scored under a vector made without it: when choosing for fold f, an item of fold g
under a vector made without f and g; when reporting, under one made without f. Layers are
compared at one dose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from steerlab.core.record import software
from steerlab.core.results import Calibration, defined
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.evaluation.calibration.curve import (
    Controls,
    Cost,
    Curve,
    Fold,
    FreshCost,
    HeldOutEffect,
    LayerEffect,
    Limits,
    Point,
    controls_of,
    lacking,
    shown_z,
    widened,
)
from steerlab.evaluation.calibration.effects import check_defined
from steerlab.evaluation.calibration.side_effects import costs, fresh_costs
from steerlab.evaluation.calibration.trials import Array, Trial, Trials
from steerlab.evaluation.statistics import CONTROLS, Estimate, critical_z, estimate, means, z_score

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

DOSES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
PROFILE_DOSE = 0.15
"""The dose at which layers are compared: text stays sound there, and effects exceed the noise."""

CONTROL_SEEDS = 20
_CURVE_SEEDS = 8  # for each point of the curve; at both signs they are 16 controls
_LAYERS = 12  # compared first, evenly spaced; then the neighbours of the best one
_SEPARABLE = 0.6
_PROFILE_WEIGHT = 25  # of progress, for each of its two rounds

Choice = Mapping[int | None, float]
"""The dose chosen for each fold without looking at it; None: the final choice, on all items."""

T = TypeVar("T")


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
        if self.seed < 0:
            raise BadOption(f"the seed must be 0 or a positive whole number, not {self.seed}")
        object.__setattr__(self, "doses", tuple(sorted(set(map(float, self.doses)))))

    @property
    def compared_at(self) -> float:
        """The dose at which layers are compared: the nearest one to `PROFILE_DOSE`."""
        return min(self.doses, key=lambda d: abs(d - PROFILE_DOSE))


@dataclass
class Search:
    """The search for one vector over candidate layers and the doses of `options`."""

    lab: Lab
    vector: SteeringVector
    trials: Trials
    candidates: Sequence[int]
    options: Options

    def run(self) -> Calibration:
        """Choose, report, and measure the curve."""
        trials = self.trials
        trials.fetch(map(Trial, trials.items), 1)
        check_defined(trials.measure, trials.unsteered(trials.items))
        compared = {fold: self.compared(fold) for fold in (None, *trials.folds)}
        layers = {fold: _largest(ranges) for fold, ranges in compared.items()}
        layer = layers[None]
        by_dose = self.costs(layer)
        safe, fresh = self.confirmed(layer, safe_range(by_dose, self.options.limits))
        doses = self.doses(layers, safe)
        held = self.held_out_effect(layers, doses, max(map(len, compared.values())))
        here = dict.fromkeys(layers, layer), dict.fromkeys(layers, doses[None])
        point = self.held_out_effect(*here, len(compared[None]))
        points = self.points(layer, by_dose, safe)
        trials.parts.finish()
        reason = why_not(held, safe)
        curve = self.curve(layer, list(compared[None]), points, held, point, reason)
        curve = replace(curve, fresh=fresh)
        if curve.reason:
            return Calibration(self.vector.digest, works=False, data=curve.to_json())
        dose = doses[None]
        coefficient = self.at(layer).coefficient(dose)
        return Calibration(
            self.vector.digest, True, layer, dose, coefficient, safe, curve.to_json()
        )

    # choosing

    def compared(self, fold: int | None) -> dict[int, float]:
        """Layer -> signed range at one dose: some layers, then the neighbours of the best one."""
        layers = self.separable(fold)
        stride = math.ceil(len(layers) / _LAYERS)
        found = self.profiled(fold, layers[::-1][::stride])
        if stride > 1:
            best = layers.index(_largest(found))
            found |= self.profiled(fold, layers[max(0, best - stride + 1) : best + stride])
        return dict(sorted(found.items()))

    def separable(self, fold: int | None) -> list[int]:
        """Layers where positive and negative prompts can be told apart; all if there are none."""
        out = self.trials.left_out(() if fold is None else (fold,))
        known = {b: self.trials.source.separability(b, out) for b in self.candidates}
        kept = [b for b, auc in known.items() if auc is None or auc >= _SEPARABLE]
        return kept or list(self.candidates)

    def profiled(self, fold: int | None, layers: Sequence[int]) -> dict[int, float]:
        """Layer -> mean signed range at the dose used to compare layers."""
        choosing, d = self.trials.choosing, self.options.compared_at
        wanted = {b: (choosing(fold, b, d), choosing(fold, b, -d)) for b in layers}
        weight = _PROFILE_WEIGHT / (len(self.trials.folds) + 1)
        self.trials.fetch((t for both in wanted.values() for side in both for t in side), weight)
        of = self.trials.of
        return {b: float(means(of(up) - of(down))) for b, (up, down) in wanted.items()}

    def costs(self, layer: int) -> dict[float, Cost]:
        """Signed dose -> its side effects on neutral prompts; no item is involved."""
        doses = [sign * d for d in self.options.doses for sign in (1, -1)]
        return dict(zip(doses, costs(*self.dosed(layer, doses), **self.how(28)), strict=True))

    def confirmed(
        self, layer: int, safe: tuple[float, float]
    ) -> tuple[tuple[float, float], tuple[FreshCost, ...]]:
        """The safe doses after a check on fresh texts, and what these said of each that was tried.

        A dose whose interval reaches beyond a limit gives way to the next lower one.
        """
        ends, found = {-1: safe[0], 1: safe[1]}, dict[float, FreshCost]()
        while wanted := [d for d in ends.values() if d and d not in found]:
            share = self.how(12 / len(self.options.doses))
            made = fresh_costs(*self.dosed(layer, wanted), **share)
            found |= {d: replace(cost, dose=d) for d, cost in zip(wanted, made, strict=True)}
            for sign, end in ends.items():
                if end in found and not found[end].within(self.options.limits):
                    lower = [d for d in self.options.doses if d < abs(end)]
                    ends[sign] = sign * max(lower, default=0.0) or 0.0
        return (ends[-1], ends[1]), tuple(found[d] for d in sorted(found))

    def dosed(self, layer: int, doses: Sequence[float]) -> tuple[Lab, list[Setting], Limits]:
        """The whole vector at a layer and these doses, as the measures of side effects take it."""
        whole = self.at(layer)
        return self.lab, [Setting(whole, whole.coefficient(d)) for d in doses], self.options.limits

    def how(self, weight: float) -> dict[str, Any]:
        """Options of a measure of side effects that takes this share of the progress."""
        return {
            "seed": self.options.seed,
            "allow_other_weights": self.options.allow_other_weights,
            "progress": self.trials.parts.part(weight),
            "should_stop": self.trials.should_stop,
        }

    def doses(
        self, layers: Mapping[int | None, int], safe: tuple[float, float]
    ) -> dict[int | None, float]:
        """For each fold the sound, signed dose with the largest effect; the weakest without one."""
        side = 1 if safe[1] or not safe[0] else -1
        end = abs(safe[1] if side > 0 else safe[0])
        sound = [side * d for d in self.options.doses if d <= end] or [side * self.options.doses[0]]
        wanted = {
            (fold, d): self.trials.choosing(fold, layer, d)
            for fold, layer in layers.items()
            for d in sound
        }
        self.trials.fetch((t for trials in wanted.values() for t in trials), 8)

        def gain(fold: int | None, d: float) -> float:
            trials = wanted[fold, d]
            plain = self.trials.unsteered(t.item for t in trials)
            return side * float(means(self.trials.of(trials) - plain))

        return {fold: _largest({d: gain(fold, d) for d in sound}) for fold in layers}

    # reporting

    def held_out_effect(
        self, layers: Mapping[int | None, int], doses: Choice, tried: int
    ) -> HeldOutEffect:
        """The effect on each fold at the layer and dose that the other folds chose.

        Random directions at the same layers and doses are its controls. tried: layers compared.
        """
        trials, seeds = self.trials, range(self.options.controls)

        def at(sign: int, seed: int | None, shuffled: bool = False) -> list[Trial]:
            return [
                trial
                for f in trials.folds
                for trial in trials.reporting(
                    f, layers[f], sign * abs(doses[f]), seed, shuffled=shuffled
                )
            ]

        own = at(1, None), at(-1, None)
        random = [(at(1, seed), at(-1, seed)) for seed in seeds]
        turned = [(at(1, k, True), at(-1, k, True)) for k in range(trials.source.shuffles)]
        every = (own, *random, *turned)
        trials.fetch((t for both in every for some in both for t in some), 8)
        plain = trials.unsteered(t.item for t in own[0])
        up, down = map(trials.of, own)
        effect = self.estimate(up - down)
        chance = self.controls(random, plain)
        shuffled = self.controls(turned, plain) if turned else None
        wide = chance if shuffled is None or shuffled[0].sd <= chance[0].sd else shuffled
        return HeldOutEffect(
            effect,
            plus=self.estimate(up - plain),
            minus=self.estimate(down - plain),
            controls=chance[0],
            z=z_among(effect.mean, wide[0]),
            critical=critical_z(len(seeds), tried),
            folds=tuple(Fold(trials.of_fold(f), layers[f], doses[f]) for f in trials.folds),
            values=tuple((up - down).tolist()),
            plus_controls=wide[1],
            minus_controls=wide[2],
            shuffled=None if shuffled is None else shuffled[0],
        )

    def controls(
        self, both: Sequence[tuple[list[Trial], list[Trial]]], plain: Array
    ) -> tuple[Controls, Controls, Controls]:
        """The mean effects of controls: signed range, and the two sides."""
        found = [(self.trials.of(up), self.trials.of(down)) for up, down in both]
        ranges = [up - down for up, down in found]
        sides = [[side - plain for side in row] for row in zip(*found, strict=True)]
        made = [controls_of([float(means(x)) for x in rows]) for rows in (ranges, *sides)]
        return made[0], made[1], made[2]

    def estimate(self, values: Array) -> Estimate:
        """The mean over items and its interval, √2 wider if the items are the vector's own pairs.

        Each pair is scored and is also part of the vector that scores the others. For a vector
        without meaning, each product of two pairs enters the mean twice, so its variance is up
        to twice that of independent items (a degenerate U-statistic).
        """
        found = estimate(values, seed=self.options.seed)
        return widened(found, math.sqrt(2)) if self.trials.crossed else found

    def points(
        self, layer: int, by_dose: Mapping[float, Cost], safe: tuple[float, float]
    ) -> list[Point]:
        """The curve at the chosen layer.

        Each direction was made without its item, but the layer was chosen on all items.
        """
        trials, seeds = self.trials, range(_CURVE_SEEDS)
        rows = {d: trials.choosing(None, layer, d) for d in sorted(by_dose)}
        random = {
            (d, seed): [Trial(i, layer, d, seed=seed) for i in trials.items]
            for d in rows
            for seed in seeds
        }
        trials.fetch((t for some in (*rows.values(), *random.values()) for t in some), 28)
        plain = trials.unsteered(trials.items)
        made = []
        for d, row in rows.items():
            # the negative of a random direction is another random direction
            around = [trials.of(random[way, seed]) - plain for seed in seeds for way in (d, -d)]
            chance = [float(means(moved)) for moved in around]
            effect = self.estimate(trials.of(row) - plain)
            z = defined(z_score(effect.mean, chance))
            sound, c = safe[0] <= d <= safe[1], self.at(layer).coefficient(d)
            made.append(Point(d, c, effect, controls_of(chance), z, by_dose[d], sound))
        return made

    def at(self, layer: int) -> SteeringVector:
        """The whole vector at a layer: the stored direction if there is one."""
        stored = self.vector
        return stored[layer] if layer in stored.directions else self.trials.source.at(layer)

    def curve(
        self,
        layer: int,
        compared: Sequence[int],
        points: Sequence[Point],
        held: HeldOutEffect,
        point: HeldOutEffect,
        reason: str,
    ) -> Curve:
        """Everything that was measured, as a value."""
        trials, d = self.trials, self.options.compared_at

        def profile(b: int) -> LayerEffect:
            up, down = (trials.of(trials.choosing(None, b, sign * d)) for sign in (1, -1))
            return LayerEffect(b, self.estimate(up - down))

        return Curve(
            measure=trials.measure.name,
            layer=layer,
            points=tuple(points),
            layers=tuple(map(profile, compared)),
            profile_dose=d,
            held=held,
            plus=_strongest(points, 1),
            minus=_strongest(points, -1),
            limits=self.options.limits,
            items=trials.measure.count,
            crossed=bool(trials.crossed),
            seed=self.options.seed,
            reason=reason,
            versions=software(),
            point=point,
        )


def safe_range(by_dose: Mapping[float, Cost], limits: Limits) -> tuple[float, float]:
    """The signed doses between which all doses are within the limits; 0 for none on a side.

    The fluency and distinctness of a dose are the medians over it and its two neighbours (no
    side effects at dose 0), so that the luck of a dozen texts does not decide. A text that was
    not written, because the KL is beyond its limit, counts as the worst.
    """
    ends = {-1: 0.0, 1: 0.0}
    for sign in ends:
        doses = sorted((d for d in by_dose if d * sign > 0), key=abs)
        row = [Cost(0.0, 1.0, 1.0), *(by_dose[d] for d in doses), Cost()]
        for place, d in enumerate(doses, 1):
            if not _median(row[place - 1 : place + 2]).within(limits):
                break
            ends[sign] = d
    return ends[-1], ends[1]


def _median(costs: Sequence[Cost]) -> Cost:
    """The median of three costs, quantity by quantity; the KL, which is exact, is the middle's."""
    fluency = sorted(math.inf if c.fluency is None else c.fluency for c in costs)[1]
    distinct = sorted(-math.inf if c.distinct is None else c.distinct for c in costs)[1]
    return Cost(costs[1].kl, fluency, distinct)


def z_among(effect: float, controls: Controls) -> float | None:
    """The z of an effect among controls; None if they are too few, or do not scatter."""
    if controls.n < CONTROLS or not controls.sd:
        return None
    return defined((effect - controls.mean) / controls.sd)


def why_not(held: HeldOutEffect, safe: tuple[float, float]) -> str:
    """Why a vector does not work; empty if it does.

    A vector without meaning may seem to move its own pairs the wrong way, since each is scored
    by the others; so a negative z shows no more than that nothing is shown.
    """
    if safe == (0.0, 0.0):
        return "every dose has side effects beyond the limits on neutral text"
    if held.beats_chance:
        return ""
    z, needed = shown_z(held.z), f"{held.critical:.1f}"
    if held.z is None or held.z < held.critical:
        return f"no dose beats its control (held-out z {z}, needed {needed})"
    low, high = held.effect.low, held.effect.high
    return (
        f"no dose beats its control on every kind of item: z is {z}, but the 95% interval of the "
        f"held-out effect, {low:+.2f} to {high:+.2f}, includes zero{lacking(held)}"
    )


def _strongest(points: Sequence[Point], sign: int) -> float | None:
    """The sound dose on one side with the largest effect in that direction."""
    sound = [p for p in points if p.sound and p.dose * sign > 0 and p.effect.mean * sign > 0]
    return max(sound, key=lambda p: sign * p.effect.mean).dose if sound else None


def _largest(values: Mapping[T, float]) -> T:
    """The key of the largest value; NaN counts as the smallest."""
    return max(values, key=lambda key: -math.inf if math.isnan(values[key]) else values[key])
