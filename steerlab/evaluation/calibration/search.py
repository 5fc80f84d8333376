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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from steerlab.core.record import software
from steerlab.core.results import Calibration, defined
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.calibration.curve import (
    Controls,
    Cost,
    Curve,
    Fold,
    HeldOutEffect,
    LayerEffect,
    Point,
    controls_of,
    overflow,
    why_not,
    widened,
    wider,
)
from steerlab.evaluation.calibration.effects import check_defined
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.calibration.side_effects import NEUTRAL, SideEffects
from steerlab.evaluation.calibration.sound import SoundDoses
from steerlab.evaluation.calibration.trials import Array, Trial, Trials
from steerlab.evaluation.statistics import CONTROLS, Estimate, critical_z, estimate, means

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

_CURVE_SEEDS = 3  # for each point of the curve; at both signs they are 6 controls
_LAYERS = 12  # compared first, evenly spaced; then the neighbours of the best one
_UNSOUND = 3  # layers that may give way to the next best one
_KEPT = 4  # of them, where a few items have to tell
_INDEPENDENT = 5  # the largest number of layers that count as independent tries
_SEPARABLE = 0.6
_PROFILE_WEIGHT = 10  # of progress, for each of its three rounds

Choice = Mapping[int | None, float]
"""The dose chosen for each fold without looking at it; None: the final choice, on all items."""

Sides = tuple[list[Trial], list[Trial]]


@dataclass
class Search:
    """The search for one vector over candidate layers and the doses of `options`.

    keys: of the items; see `Curve`.
    """

    lab: Lab
    vector: SteeringVector
    trials: Trials
    candidates: Sequence[int]
    options: Options
    keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.effects = SideEffects(
            self.lab,
            self.options.limits,
            seed=self.options.seed,
            allow_other_weights=self.options.allow_other_weights,
            parts=self.trials.parts,
            should_stop=self.trials.should_stop,
        )

    def run(self) -> Calibration:
        """Choose, report, and measure the curve."""
        trials = self.trials
        trials.fetch(map(Trial, trials.items), 1)
        check_defined(trials.measure, trials.unsteered(trials.items))
        compared = self.compared()
        layers, sound, safe, unsound = self.sound_layers(compared)
        layer = layers[None]
        doses = self.doses(layers, safe)
        held = self.held_out_effect(layers, doses, max(map(len, compared.values())))
        here = dict.fromkeys(layers, layer), dict.fromkeys(layers, doses[None])
        point = self.held_out_effect(*here, len(compared[None]))
        points = self.points(layer, sound.costs, safe)
        profile = self.profile(list(compared[None]))
        trials.parts.finish()
        overflows = overflow(sound.costs)
        curve = self.curve(layer, profile, points, held, point, overflows or why_not(held, safe))
        passed_over = () if overflows else unsound  # no layer has an effect to compare
        curve = replace(curve, fresh=sound.fresh, keys=self.keys, unsound=passed_over)
        if curve.reason:
            return Calibration(self.vector.digest, works=False, data=curve.to_json())
        dose = doses[None]
        coefficient = self.at(layer).coefficient(dose)
        return Calibration(
            self.vector.digest, True, layer, dose, coefficient, safe, curve.to_json()
        )

    # choosing

    def compared(self) -> dict[int | None, dict[int, float]]:
        """For each fold, layer -> signed range at one dose: some, then neighbours of the best one.

        A fold's own choice keeps to the best of these by a few items. The final choice, which is
        the one that counts and is shown, compares all of them on all items.
        """
        layers = {fold: self.plausible(fold) for fold in (None, *self.trials.folds)}
        stride = {fold: math.ceil(len(mine) / _LAYERS) for fold, mine in layers.items()}
        some = {fold: mine[::-1][:: stride[fold]] for fold, mine in layers.items()}
        few = self.ranges(some, at_most=max(2, self.trials.measure.count // 4))
        known = self.ranges({f: b if f is None else _best(few[f]) for f, b in some.items()})
        last = self.ranges({f: _around(layers[f], _best(known[f])[0], stride[f]) for f in layers})
        return {fold: dict(sorted({**known[fold], **last[fold]}.items())) for fold in layers}

    def sound_layers(
        self, compared: Mapping[int | None, Mapping[int, float]]
    ) -> tuple[dict[int | None, int], SoundDoses, tuple[float, float], tuple[int, ...]]:
        """For each fold the best layer, with the sound doses of the final choice.

        A layer without a sound dose gives way, in all folds, to the next best one of the final
        choice: equal doses cost more at some layers than at others. What texts cost says nothing
        of the items; but those of a fold have a part in which layers are tried, and the best that
        go take their effect along. So the held-out range is too low, if anything: by 0.14 sd of
        an item in simulations of 12 unrelated layers without meaning, of which half are unsound.
        No text is written at the layers of folds, as the verdict says. Last: layers that gave way.
        """
        unsound: list[int] = []
        while True:
            left = {
                fold: {b: r for b, r in ranges.items() if b not in unsound} or ranges
                for fold, ranges in compared.items()
            }
            layers = {fold: _best(ranges)[0] for fold, ranges in left.items()}
            sound = SoundDoses(self.effects, self.at(layers[None]), self.options.doses)
            safe = sound.run()
            if safe != (0.0, 0.0) or len(unsound) == _UNSOUND or len(left[None]) == 1:
                return layers, sound, safe, tuple(unsound)
            unsound.append(layers[None])

    def plausible(self, fold: int | None) -> list[int]:
        """Layers but for those that clearly fail to tell positive from negative prompts.

        The AUC of few pairs says little: two standard errors of that of n pairs without meaning
        (Mann and Whitney 1947) are 0.43 for 4 pairs and 0.30 for 8. All layers if none is left.
        """
        out = self.trials.left_out(() if fold is None else (fold,))
        n = max(len(self.trials.source.pairs) - len(out), 1)
        reach = 2 * math.sqrt((2 * n + 1) / (12 * n * n))
        known = {b: self.trials.source.separability(b, out) for b in self.candidates}
        kept = [b for b, auc in known.items() if auc is None or auc + reach >= _SEPARABLE]
        return kept or list(self.candidates)

    def ranges(
        self, layers: Mapping[int | None, Sequence[int]], at_most: int | None = None
    ) -> dict[int | None, dict[int, float]]:
        """For each fold, layer -> signed range; all of one layer share the blocks below it."""
        of, sides = self.trials.of, {f: self.sides(f, b, at_most) for f, b in layers.items()}
        every = (t for own in sides.values() for both in own.values() for row in both for t in row)
        self.trials.fetch(every, _PROFILE_WEIGHT)
        return {
            fold: {b: float(means(of(up) - of(down))) for b, (up, down) in own.items()}
            for fold, own in sides.items()
        }

    def sides(
        self, fold: int | None, layers: Sequence[int], at_most: int | None = None
    ) -> dict[int, Sides]:
        """Layer -> the trials at both signs of the dose used to compare layers.

        at_most: so many of a fold's items, evenly spaced; None takes all.
        """
        d = self.options.compared_at

        def side(b: int, sign: int) -> list[Trial]:
            rows = self.trials.choosing(fold, b, sign * d)
            return rows if fold is None else rows[:: math.ceil(len(rows) / (at_most or len(rows)))]

        return {b: (side(b, 1), side(b, -1)) for b in layers}

    def doses(
        self, layers: Mapping[int | None, int], safe: tuple[float, float]
    ) -> dict[int | None, float]:
        """For each fold the sound, signed dose with the largest effect; the weakest without one.

        Tried from the strongest down, as long as a lower one has more effect.
        """
        side = 1 if safe[1] or not safe[0] else -1
        end = abs(safe[1] if side > 0 else safe[0])
        sound = [side * d for d in self.options.doses if d <= end] or [side * self.options.doses[0]]
        best, gains, undecided = dict[int | None, float](), dict[int | None, float](), dict(layers)
        for d in reversed(sound):
            wanted = {f: self.trials.choosing(f, layer, d) for f, layer in undecided.items()}
            self.trials.fetch((t for some in wanted.values() for t in some), 2 / len(sound))
            for fold, trials in wanted.items():
                plain = self.trials.unsteered(t.item for t in trials)
                gain = _ranked(side * float(means(self.trials.of(trials) - plain)))
                if fold in gains and gain <= gains[fold]:
                    del undecided[fold]
                else:
                    gains[fold], best[fold] = gain, d
            if not undecided:
                break
        return best

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
        trials.fetch((t for both in every for some in both for t in some), 10)
        plain = trials.unsteered(t.item for t in own[0])
        up, down = map(trials.of, own)
        effect = self.estimate(up - down)
        chance = self.controls(random, plain)
        shuffled = self.controls(turned, plain) if turned else None
        wide = shuffled if shuffled and wider(chance[0], shuffled[0]) is shuffled[0] else chance
        return HeldOutEffect(
            effect,
            plus=self.estimate(up - plain),
            minus=self.estimate(down - plain),
            controls=chance[0],
            z=z_among(effect.mean, wide[0]),
            critical=max(critical_z(len(seeds), tried), among(wide[0].n, tried)),
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
        trials.fetch((t for some in (*rows.values(), *random.values()) for t in some), 20)
        plain = trials.unsteered(trials.items)
        made = []
        for d, row in rows.items():
            # the negative of a random direction is another random direction
            around = [trials.of(random[way, seed]) - plain for seed in seeds for way in (d, -d)]
            chance = [float(means(moved)) for moved in around]
            effect = self.estimate(trials.of(row) - plain)
            found = controls_of(chance)
            sound, c = safe[0] <= d <= safe[1], self.at(layer).coefficient(d)
            z = z_among(effect.mean, found)
            made.append(Point(d, c, effect, found, z, by_dose[d], sound))
        return made

    def at(self, layer: int) -> SteeringVector:
        """The whole vector at a layer: the stored direction if there is one."""
        stored = self.vector
        return stored[layer] if layer in stored.directions else self.trials.at(layer)

    def profile(self, layers: Sequence[int]) -> tuple[LayerEffect, ...]:
        """The effect and the KL of the layers that the final choice compared, at one dose."""
        of, d = self.trials.of, self.options.compared_at
        whole = [self.at(b) for b in layers]
        both = [
            Setting(v, v.coefficient(s * d)) if v.norm else Setting()
            for v in whole
            for s in (1, -1)
        ]
        nats = [math.nan if kl is None else kl for kl in self.effects.kl(both, 3, NEUTRAL[::2])]
        largest = map(max, nats[::2], nats[1::2])
        return tuple(
            LayerEffect(b, self.estimate(of(up) - of(down)), defined(kl))
            for (b, (up, down)), kl in zip(self.sides(None, layers).items(), largest, strict=True)
        )

    def curve(
        self,
        layer: int,
        profile: Sequence[LayerEffect],
        points: Sequence[Point],
        held: HeldOutEffect,
        point: HeldOutEffect,
        reason: str,
    ) -> Curve:
        """Everything that was measured, as a value."""
        trials = self.trials
        return Curve(
            measure=trials.measure.name,
            layer=layer,
            points=tuple(points),
            layers=tuple(profile),
            profile_dose=self.options.compared_at,
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
            candidates=tuple(self.candidates),
        )


def among(controls: int, tried: int) -> float:
    """The critical z among the wider controls, which may be few: 4 pairs have 6 shuffled vectors.

    Effects of layers correlate (shuffled labels on smollm2: 0.83 three layers apart, 0.42 fifteen
    apart), so the best of 14 counts as the best of 5. In simulations with these correlations,
    whose shuffled vectors scatter 1 to 3 times as much as random ones, 0.7% to 5.0% of nulls reach
    it; with the value for 20 random directions alone, up to 7.5% do.
    """
    return critical_z(max(controls, CONTROLS), min(tried, _INDEPENDENT))


def z_among(effect: float, controls: Controls) -> float | None:
    """The z of an effect among controls; None if they are too few, or do not scatter."""
    if controls.n < CONTROLS or not controls.sd:
        return None
    return defined((effect - controls.mean) / controls.sd)


def _strongest(points: Sequence[Point], sign: int) -> float | None:
    """The sound dose on one side with the largest effect in that direction."""
    sound = [p for p in points if p.sound and p.dose * sign > 0 and p.effect.mean * sign > 0]
    return max(sound, key=lambda p: sign * p.effect.mean).dose if sound else None


def _best(ranges: Mapping[int, float]) -> list[int]:
    """The few layers with the largest range, from the largest down; NaN counts as the least."""
    return sorted(ranges, key=lambda b: _ranked(ranges[b]), reverse=True)[:_KEPT]


def _around(layers: Sequence[int], best: int, stride: int) -> Sequence[int]:
    """The layers between `best` and those that were compared beside it."""
    place = layers.index(best)
    return layers[max(0, place - stride + 1) : place + stride] if stride > 1 else ()


def _ranked(value: float) -> float:
    return -math.inf if math.isnan(value) else value
