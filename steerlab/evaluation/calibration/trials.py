"""Trials: the values that a calibration needs, each measured once and in large batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from steerlab.core.algebra import control_like
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.calibration.effects import Measure
from steerlab.evaluation.calibration.held_out import Pair, Source
from steerlab.progress import Parts, ShouldStop

Array = NDArray[np.float64]
_FOLDS = 5
_SEEDS = 2**20  # of controls that a calibration may use: those of two seeds never meet


@dataclass(frozen=True)
class Trial:
    """An item under a direction at a signed dose; dose 0 is the unsteered item.

    without: the folds whose pairs were left out of the direction.
    seed: of the random direction that replaces the vector; None for the vector itself.
    shuffled: whether a vector of shuffled labels replaces it, the one of number `seed`.
    """

    item: int
    layer: int = 0
    dose: float = 0.0
    without: frozenset[int] = frozenset()
    seed: int | None = None
    shuffled: bool = False


@dataclass
class Trials:
    """Items in folds, and the values measured so far.

    crossed: the pair behind each item if the items are the vector's own pairs; empty if the
        vector was made of other pairs, so that nothing has to be left out.
    parts: total weight 125; `fetch` takes the weight of each of its calls.
    """

    source: Source
    measure: Measure
    crossed: Sequence[Pair]
    seed: int
    parts: Parts
    should_stop: ShouldStop | None = None

    def __post_init__(self) -> None:
        self.items = range(self.measure.count)
        self.fold_of = assign_folds(self.measure.count)
        self.folds = sorted(set(self.fold_of))
        self._values: dict[Trial, float] = {}
        self.at, self.shuffled = cache(self.source.at), cache(self.source.shuffled)

    def choosing(self, fold: int | None, layer: int, dose: float) -> list[Trial]:
        """The trials that may be looked at when choosing for a fold (None: the final choice).

        All items of the other folds, each under a direction made without its own fold and
        without `fold`.
        """
        mine = frozenset() if fold is None else frozenset({fold})
        return [
            self._trial(i, layer, dose, mine | {f}) for i, f in enumerate(self.fold_of) if f != fold
        ]

    def reporting(
        self, fold: int, layer: int, dose: float, seed: int | None = None, *, shuffled: bool = False
    ) -> list[Trial]:
        """A fold's items under a direction made without them, or under a control."""
        items = self.of_fold(fold)
        if seed is not None:
            return [Trial(i, layer, dose, seed=seed, shuffled=shuffled) for i in items]
        return [self._trial(i, layer, dose, frozenset({fold})) for i in items]

    def unsteered(self, items: Iterable[int]) -> Array:
        """The values of unsteered items."""
        return self.of(Trial(i) for i in items)

    def of_fold(self, fold: int) -> tuple[int, ...]:
        """The items of a fold."""
        return tuple(i for i, f in enumerate(self.fold_of) if f == fold)

    def _trial(self, item: int, layer: int, dose: float, without: frozenset[int]) -> Trial:
        return Trial(item, layer, dose, without if self.crossed else frozenset())

    def fetch(self, trials: Iterable[Trial], weight: float) -> None:
        """Measure the trials that have no value yet; weight: share of the progress."""
        missing = [t for t in dict.fromkeys(trials) if t not in self._values]
        found = self.measure.values(
            [(t.item, self.setting(t)) for t in missing],
            progress=self.parts.part(weight),
            should_stop=self.should_stop,
        )
        self._values |= dict(zip(missing, found.tolist(), strict=True))

    def of(self, trials: Iterable[Trial]) -> Array:
        """The values of trials that have been fetched: (n_trials,)."""
        return np.array([self._values[trial] for trial in trials])

    def setting(self, trial: Trial) -> Setting:
        """How a trial steers, with the coefficient that gives its dose.

        The baseline for a direction that is zero once its pairs are left out.
        """
        if not trial.dose:
            return Setting()
        if trial.seed is None:
            vector = self.at(trial.layer, self.left_out(trial.without))
        elif trial.shuffled:
            vector = self.shuffled(trial.layer, trial.seed)
        else:
            vector = self.random(trial.layer, trial.seed)
        return Setting(vector, vector.coefficient(trial.dose)) if vector.norm else Setting()

    def random(self, layer: int, seed: int) -> SteeringVector:
        """A random direction with the norm of the whole vector."""
        return control_like(self.at(layer), _SEEDS * self.seed + seed)

    def left_out(self, folds: Iterable[int]) -> tuple[Pair, ...]:
        """The pairs of these folds; empty if the items are not the vector's own pairs."""
        return tuple(self.crossed[i] for f in folds for i in self.of_fold(f) if self.crossed)


def assign_folds(count: int) -> list[int]:
    """The fold of each item, dealt in turn to at most five folds.

    Neighbours are in different folds, so two folds never hold all pairs of an operand with
    three or more, and every fold has some of each kind of items in a file sorted by kind.
    """
    return [item % min(count, _FOLDS) for item in range(count)]
