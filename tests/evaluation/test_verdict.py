"""Conditions, aggregation by style, and the rules behind the words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from steerlab.core.results import Evaluation, Measured
from steerlab.core.setting import Setting
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.generalization.conditions import (
    Conditions,
    changes,
    conditions,
    effects,
    ratios,
    weighted,
)
from steerlab.evaluation.generalization.verdict import Finding, by_name, judge, judged, verdict
from steerlab.evaluation.statistics import critical_z, estimate, z_score
from tests.registry.samples import vector

N = 8
RNG = np.random.default_rng(3)


def made(shuffled=False) -> Conditions:
    return conditions(vector(), 2.0, 5, [-k * vector() for k in range(1, 6)] if shuffled else ())


def test_conditions_have_the_vector_at_both_signs_and_controls_of_its_norm():
    of = conditions(vector(), 2.0, 5, [-vector()])
    assert (of.random, of.shuffled) == (5, 1)
    assert len(of.settings) == 3 + 2 * 5 + 2
    assert of.settings[0] == Setting()
    assert [s.coefficient for s in of.own[1:]] == [2.0, -2.0]
    dose = vector().dose(2.0)
    assert [s.dose for s in of.settings[1:]] == pytest.approx([dose, -dose] * 7)
    for setting in of.settings[1:]:
        assert setting.vector.norms() == pytest.approx(vector().norms())
    assert len({s.vector.digest for s in of.settings[1:]}) == 7
    assert of.settings[1].vector == vector()
    assert of.settings[-1].vector == -vector()


def test_effects_are_paired_and_stand_beside_their_controls():
    of = made(shuffled=True)
    table = RNG.normal(size=(23, N))
    v = by_name(effects("x", "m", table, of))
    ranges = [np.mean(table[3 + 2 * i] - table[4 + 2 * i]) for i in range(5)]
    expected = estimate(table[1] - table[2])
    assert v["x", "m", names.RANGE].estimate == expected.mean
    assert v["x", "m", names.RANGE].low == expected.low
    assert v["x", "m", names.TOWARD].estimate == pytest.approx(np.mean(table[1] - table[0]))
    assert v["x", "m", names.BASELINE].n == N
    assert v["x", "m", names.RANDOM].estimate == pytest.approx(np.mean(ranges))
    assert v["x", "m", names.RANDOM].n == 5
    assert v["x", "m", names.Z].estimate == pytest.approx(z_score(expected.mean, ranges))
    turned = [np.mean(table[13 + 2 * i] - table[14 + 2 * i]) for i in range(5)]
    assert v["x", "m", names.SHUFFLED].estimate == pytest.approx(np.mean(turned))
    shuffled = v["x", "m", names.Z_SHUFFLED]
    assert (shuffled.estimate, shuffled.n) == (pytest.approx(z_score(expected.mean, turned)), 5)


def test_too_few_shuffled_vectors_give_no_z():
    of = conditions(vector(), 2.0, 5, [-vector()] * 4)
    v = by_name(effects("x", "m", RNG.normal(size=(21, N)), of))
    assert v["x", "m", names.Z].estimate is not None
    assert v["x", "m", names.Z_SHUFFLED].estimate is None


def test_what_is_undefined_stays_so():
    of = made()
    table = np.full((13, N), np.nan)
    table[0] = 1.0
    v = by_name(effects("x", "m", table, of))
    assert v["x", "m", names.BASELINE].estimate == 1
    assert v["x", "m", names.RANGE].estimate is None
    assert v["x", "m", names.Z].estimate is None
    assert judge(v, "x", "m").finding is Finding.UNKNOWN


def test_prices_are_changes_and_ratios_are_geometric():
    of = made()
    table = RNG.normal(size=(13, N))
    v = by_name(changes("x", "m", table, of))
    assert v["x", "m", names.AWAY].estimate == pytest.approx(np.mean(table[2] - table[0]))
    random = np.mean(table[3:13]) - np.mean(table[0])
    assert v["x", "m", names.RANDOM].estimate == pytest.approx(random)
    v = by_name(ratios("x", "r", table[1:], of))
    assert v["x", "r", names.TOWARD].estimate == pytest.approx(np.exp(np.mean(table[1])))
    assert v["x", "r", names.TOWARD].low == pytest.approx(np.exp(estimate(table[1]).low))
    assert v["x", "r", names.RANDOM].estimate == pytest.approx(np.exp(np.mean(table[3:13])))
    assert (("x", "r", names.RANDOM)) not in by_name(ratios("x", "r", table[1:3], of))


def test_weighted_values_have_the_weighted_mean():
    losses, tokens = RNG.normal(size=N), RNG.integers(1, 40, size=N)
    assert np.mean(weighted(losses, tokens)) == pytest.approx(np.average(losses, weights=tokens))
    assert weighted(losses, np.full(N, 7)) == pytest.approx(losses)


# the rules


def values(style="s", metric="vader", size=(0.5, 0.2, 0.8), z=6.0, among=None):
    found = [
        Measured(style, metric, names.RANGE, *size, n=N),
        Measured(style, metric, names.Z, z, n=5),
    ]
    if among is not None:
        found.append(Measured(style, metric, names.Z_SHUFFLED, among, n=5))
    return found


@pytest.mark.parametrize(
    ("changed", "finding", "says"),
    [
        ({}, Finding.GENERALIZES, "+0.50 [+0.20, +0.80], z +6.0"),
        ({"size": (0.02, -0.05, 0.08)}, Finding.NOTHING, "+0.02 [-0.05, +0.08] includes 0"),
        ({"size": (0.5, 0.0, 0.8)}, Finding.NOTHING, "includes 0"),
        ({"z": critical_z(5) - 0.01}, Finding.CHANCE, "within random directions: z +2.3"),
        ({"z": critical_z(5)}, Finding.GENERALIZES, "z +2.3"),
        ({"z": -6.0}, Finding.CHANCE, "within random directions"),
        ({"z": None}, Finding.CHANCE, "no control"),
        ({"z": math.inf}, Finding.CHANCE, "no control"),
        ({"among": 2.4}, Finding.GENERALIZES, "z +6.0, z +2.4 among shuffled labels"),
        ({"among": 2.3}, Finding.CHANCE, "within shuffled labels: z +2.3, needed 2.34"),
        ({"among": math.nan}, Finding.CHANCE, "no control"),
        ({"among": -6.0}, Finding.CHANCE, "within shuffled labels"),
        ({"size": (-0.5, -0.8, -0.2), "z": -6.0, "among": 2.4}, Finding.CHANCE, "shuffled labels"),
        ({"size": (-0.5, -0.8, -0.2), "z": -6.0}, Finding.REVERSED, "-0.50 [-0.80, -0.20]"),
        ({"size": (-0.5, -0.8, -0.2)}, Finding.CHANCE, "within random directions"),
        ({"size": (0.5, None, None)}, Finding.UNKNOWN, "no value"),
        ({"size": (None, None, None)}, Finding.UNKNOWN, "no value"),
    ],
)
def test_an_effect_has_to_beat_zero_and_both_controls(changed, finding, says):
    found = judge(by_name(values(**changed)), "s", "vader")
    assert found.finding is finding
    assert says in found.text


def evaluation(*values):
    return Evaluation("0" * 64, "standard", "0" * 64, "tiny", "k", {}, values, data={})


def test_the_words_name_styles_by_what_was_found():
    of = evaluation(
        *values("statements"),
        *values("narrative"),
        *values("technical", size=(0.02, -0.05, 0.08)),
        *values("letters", size=(-0.5, -0.8, -0.2), z=-6),
        *values("dialogue", size=(None, None, None)),
        *values(names.OWN_PAIRS, names.PROPENSITY),
        *values(names.ALL, size=(0.3, 0.2, 0.4), z=4),
    )
    (line, *_) = verdict(of)
    assert line == (
        "vader: shown in statements (+0.50 [+0.20, +0.80], z +6.0) and narrative "
        "(+0.50 [+0.20, +0.80], z +6.0); shown the other way in letters "
        "(-0.50 [-0.80, -0.20], z -6.0); not shown in technical "
        "(+0.02 [-0.05, +0.08] includes 0); not measured in dialogue; "
        "all styles together +0.30 [+0.20, +0.40], z +4.0"
    )
    assert names.OWN_PAIRS not in {j.style for j in judged(of)}


def prices(fluency=(1.1, 1.0, 2.0), distinct=(-0.01, -0.08, 0.1), p1=(-0.02, -0.06, 0.02)):
    return [
        Measured("statements", names.PROPENSITY, names.SHARE, 1.0, 0.8467, 1.0, 18),
        Measured(names.FACTS, names.LOST, names.AWAY, 0.0, 0.0, 0.1173, 24),
        *values("statements"),
        Measured("statements", names.FLUENCY, names.TOWARD, *fluency, N),
        Measured("statements", names.FLUENCY, names.AWAY, 1.2, 1.0, 1.5, N),
        Measured("statements", names.DISTINCT, names.BASELINE, 0.9, 0.8, 1.0, N),
        Measured("statements", names.DISTINCT, names.TOWARD, 0.0, 0.0, 0.0, N),
        Measured("statements", names.DISTINCT, names.AWAY, *distinct, N),
        Measured(names.FACTS, names.P1, names.BASELINE, 0.92, 0.8, 1.0, 24),
        Measured(names.FACTS, names.P1, names.TOWARD, *p1, 24),
        Measured(names.FACTS, names.P1, names.AWAY, 0.0, 0.0, 0.0, 24),
        Measured(names.NEUTRAL, names.KL, names.TOWARD, 0.12, 0.1, 0.2, 12),
        Measured(names.NEUTRAL, names.KL, names.AWAY, 0.2, 0.1, 0.2, 12),
        Measured(names.NEUTRAL, names.KL, names.RANDOM, 0.1, 0.1, 0.2, 5),
        Measured(names.OFF_TOPIC, names.PERPLEXITY, names.TOWARD, 1.05, 1.0, 1.1, 6),
        Measured(names.OWN_PAIRS, names.STEERABILITY, names.RANGE, 20.0, 10.0, 30.0, 4),
        Measured(names.OWN_PAIRS, names.ANTI, names.RANGE, 0.25, n=4),
    ]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"fluency": (1.1, 0.9, 1.4)},
            "fluency kept (perplexity ratio at most 1.5): shown, 1.20 [1.00, 1.50] in statements "
            "at -",
        ),
        ({}, "at most 1.5): not shown, 1.10 [1.00, 2.00] in statements at +"),
        ({"fluency": (1.8, 1.6, 2.0)}, "refuted, 1.80 [1.60, 2.00] in statements at +"),
        ({"fluency": (1.1, None, None)}, "not shown, 1.10 without an interval in statements at +"),
        ({}, "no more repetition (distinct-2 falls by at most 10%): shown, 0.01 [-0.11, 0.09]"),
        ({"distinct": (-0.06, -0.2, 0.1)}, "not shown, 0.07 [-0.11, 0.22] in statements at -"),
        ({"distinct": (-0.3, -0.4, -0.2)}, "refuted, 0.33 [0.22, 0.44] in statements at -"),
        ({"p1": (-0.02, -0.04, 0.0)}, "facts kept (P@1 falls by at most 0.05): shown, 0.02 [-0.00"),
        ({}, "not shown, 0.02 [-0.02, 0.06] in facts at +; P@1 0.92 -> 0.90 and 0.92, n 24"),
        ({"p1": (-0.2, -0.35, -0.06)}, "refuted, 0.20 [0.06, 0.35] in facts at +"),
        ({"p1": (-0.1, -0.25, 0.05)}, "by at most 0.05): not shown, 0.10 [-0.05, 0.25]"),
        ({}, "statements: 18 of 18 moved the right way: at least 84% of such items do (95%"),
        ({}, "facts at -: 0 of 24 known facts lost: at most 12% of such ones are (95%"),
        (
            {},
            "of neutral prompts moves by 0.12 and 0.20 nats (random directions: 0.10)",
        ),
        ({}, "perplexity of given texts, relative to the baseline: off topic 1.05"),
        ({}, "own pairs, not held out: steerability +20.00 [+10.00, +30.00] nats per dose, 25%"),
    ],
)
def test_every_price_has_its_rule(changed, says):
    assert any(says in line for line in verdict(evaluation(*prices(**changed))))


def test_an_evaluation_without_any_value_says_nothing():
    assert verdict(evaluation()) == []
