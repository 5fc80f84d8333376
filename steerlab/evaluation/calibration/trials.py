"""Trials: the numbers that a calibration needs, each measured once, and in large batches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector, random_like
from steerlab.evaluation.calibration.effects import Measure
from steerlab.evaluation.calibration.held_out import Pair, Source
from steerlab.progress import Progress, ShouldStop

Array = NDArray[np.float64]
_FOLDS = 5


@dataclass(frozen=True)
class Trial:
    """An item under a direction and a signed dose; dose 0 is the item unsteered.

    without: the folds whose pairs the direction has not seen; empty where nothing is left out.
    seed: of the random direction that takes the vector's place; None for the vector.
    """

    item: int
    layer: int = 0
    dose: float = 0.0
    without: frozenset[int] = frozenset()
    seed: int | None = None


class Trials:
    """Items in folds, and what has been measured of them.

    crossed: the pair behind each item where the items are the vector's own pairs; empty where
        the vector has never seen them, so that nothing has to be left out of it.
    """

    def __init__(
        self, source: Source, measure: Measure, crossed: Sequence[Pair], seed: int, steps: Steps
    ) -> None:
        self.source, self.measure, self.crossed = source, measure, crossed
        self.seed, self.steps = seed, steps
        self.items = range(measure.count)
        self.fold_of = dealt(measure.count)
        self.folds = sorted(set(self.fold_of))
        self._values: dict[Trial, float] = {}

    def choosing(self, fold: int | None, layer: int, dose: float) -> list[Trial]:
        """What may be looked at while choosing for a fold (None: for the final choice).

        All items of other folds, each under a direction that has not seen its own fold, nor
        the one that is to be reported on.
        """
        mine = frozenset() if fold is None else frozenset({fold})
        return [
            self._trial(i, layer, dose, mine | {f}) for i, f in enumerate(self.fold_of) if f != fold
        ]

    def reporting(self, fold: int, layer: int, dose: float, seed: int | None = None) -> list[Trial]:
        """A fold's items under a direction that has not seen them, or under a random one."""
        items = self.of_fold(fold)
        if seed is not None:
            return [Trial(i, layer, dose, seed=seed) for i in items]
        return [self._trial(i, layer, dose, frozenset({fold})) for i in items]

    def unsteered(self, items: Iterable[int]) -> Array:
        """The items as they are."""
        return self.of(Trial(i) for i in items)

    def of_fold(self, fold: int) -> tuple[int, ...]:
        """The items of a fold."""
        return tuple(i for i, f in enumerate(self.fold_of) if f == fold)

    def _trial(self, item: int, layer: int, dose: float, without: frozenset[int]) -> Trial:
        return Trial(item, layer, dose, without if self.crossed else frozenset())

    def fetch(self, trials: Iterable[Trial], weight: float) -> None:
        """Measure what is not known yet, in one go; weight: its share of all the work."""
        missing = [t for t in dict.fromkeys(trials) if t not in self._values]
        found = self.measure.values(
            [(t.item, self.setting(t)) for t in missing],
            progress=self.steps.part(weight),
            should_stop=self.steps.should_stop,
        )
        self._values |= dict(zip(missing, found.tolist(), strict=True))

    def of(self, trials: Iterable[Trial]) -> Array:
        """The values of trials that have been fetched: (n_trials,)."""
        return np.array([self._values[trial] for trial in trials])

    def setting(self, trial: Trial) -> Setting:
        """How a trial steers; its coefficient is whatever has the dose.

        A direction that is zero without some of its pairs does nothing.
        """
        if not trial.dose:
            return Setting()
        if trial.seed is None:
            vector = self.source.at(trial.layer, self.left_out(trial.without))
        else:
            vector = self.random(trial.layer, trial.seed)
        return Setting(vector, vector.coefficient(trial.dose)) if vector.norm else Setting()

    def random(self, layer: int, seed: int) -> SteeringVector:
        """A random direction with the whole vector's norm."""
        return random_like(self.source.at(layer), self.seed + seed)

    def left_out(self, folds: Iterable[int]) -> tuple[Pair, ...]:
        """The pairs of these folds; none where the items are not the vector's own."""
        return tuple(self.crossed[i] for f in folds for i in self.of_fold(f) if self.crossed)


class Steps:
    """Progress of the parts of a search as progress of the whole, in thousandths.

    Weights are what parts took of `WHOLE` when they were measured.
    """

    WHOLE = 125

    def __init__(self, progress: Progress | None, should_stop: ShouldStop | None) -> None:
        self.progress, self.should_stop = progress, should_stop
        self.done = 0.0

    def part(self, weight: float) -> Progress | None:
        """The progress of a part that begins now."""
        before, self.done = self.done, self.done + weight
        progress = self.progress
        if progress is None:
            return None
        return lambda done, total: progress(
            min(999, round(1000 * (before + weight * done / max(total, 1)) / self.WHOLE)), 1000
        )

    def finish(self) -> None:
        """Everything is done."""
        if self.progress is not None:
            self.progress(1000, 1000)


def dealt(count: int) -> list[int]:
    """The fold of each item, dealt in turn to at most five.

    Neighbours are in different folds, so that two folds never hold all pairs of an operand of
    three or more, and every fold has some of each kind of items in a file sorted by kind.
    """
    return [item % min(count, _FOLDS) for item in range(count)]


def mean(values: Array) -> float:
    """The mean of what is defined; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
