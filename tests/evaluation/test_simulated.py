"""What verdicts, intervals and guarantees are worth, where the truth is known.

Whole calibrations of simulated items: see `tests.evaluation.simulated`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlab.evaluation.calibration.curve import Curve, FreshCost
from steerlab.evaluation.calibration.side_effects import SideEffects
from steerlab.evaluation.guarantee import share_moved
from steerlab.evaluation.statistics import Estimate
from tests.evaluation.simulated import LAYERS, WIDTH, World, made, search

pytestmark = pytest.mark.campaign


@pytest.fixture(autouse=True)
def free(monkeypatch):
    """Steering costs nothing."""
    fine = FreshCost(0.0, *[Estimate(1.0, 1.0, 1.0, 24)] * 2, Estimate(0.0, 0.0, 0.1, 24))
    for name, one in (("kl", 0.0), ("fresh", fine)):
        monkeypatch.setattr(SideEffects, name, lambda self, some, *_, one=one: [one] * len(some))


def null(kind: str, seed: int):
    """A calibration of a vector without meaning."""
    count = (6, 8, 12, 16)[seed % 4]
    if kind == "random":  # of items that share what they answer, as real ones do
        rng = np.random.default_rng(seed)
        vector = made({b: rng.standard_normal(WIDTH) for b in LAYERS})
        return search(World(seed, 0.3, count), vector=vector)
    world = World(seed, 0.3 if kind == "shuffled" else 0.0, count)
    if kind == "shuffled":  # half of the pairs the other way round
        world.differences[::2] *= -1
        world.readouts[::2] *= -1
    return search(world, own_pairs=kind != "unpaired on other items")


@pytest.mark.parametrize("kinds", [("random", "shuffled"), ("unpaired", "unpaired on other items")])
def test_of_200_vectors_without_meaning_few_work_and_few_sides_are_shown(kinds):
    found = [null(kinds[seed % 2], seed).run() for seed in range(200)]
    works = sum(calibration.works for calibration in found)
    points = [Curve.of(calibration).point for calibration in found]
    sides = sum(point.shows(sign) for point in points for sign in (1, -1))
    assert works <= 0.05 * len(found), works
    assert sides <= 0.05 * 2 * len(found), sides


def test_vectors_with_meaning_work():
    found = [search(World(seed, 1.0, 8)).run() for seed in range(40)]
    assert sum(calibration.works for calibration in found) >= 36


@pytest.mark.parametrize("own_pairs", [True, False])
def test_intervals_hold_the_effect_on_many_other_items(own_pairs):
    """The effect is that of each fold's vector, at its layer and dose, on 4,000 new items."""
    held = 0
    for seed in range(100):
        world = World(seed, 0.5, (8, 12, 16)[seed % 3])
        run = search(world, own_pairs=own_pairs)
        effect = Curve.of(run.run()).held
        trials, true = run.trials, []
        for number, fold in enumerate(effect.folds):
            vector = trials.source.at(fold.layer, trials.left_out((number,)))
            true += [world.truth(vector, abs(fold.dose)).mean()] * len(fold.items)
        held += effect.effect.low <= np.mean(true) <= effect.effect.high
    assert 90 <= held <= 99 + own_pairs, held


@pytest.mark.parametrize("own_pairs", [True, False])
def test_the_guarantee_holds_for_new_items(own_pairs):
    """At least the share that is promised moves the right way under the whole vector."""
    kept = 0
    for seed in range(100):
        world = World(seed, 0.5, (8, 12, 16)[seed % 3])
        run = search(world, own_pairs=own_pairs)
        found = run.run()
        curve = Curve.of(found)
        promised = share_moved(curve.held.values).low
        true = np.mean(world.truth(run.at(curve.layer), 0.2) > 0)
        kept += not math.isnan(promised) and promised <= true
    assert kept >= 95, kept
