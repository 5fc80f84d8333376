"""Calibration finds what is planted, finds nothing where nothing is, and never looks ahead."""

import math
from dataclasses import replace

import numpy as np
import pytest

from steerlab.core.algebra import random_like
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, BadPrompts, Cancelled, Incompatible, NotFound
from steerlab.evaluation.calibration import side_effects
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import (
    Controls,
    Cost,
    Curve,
    FreshCost,
    Limits,
    controls_of,
    findings,
    lacking,
    side,
    verdict,
    why_not,
)
from steerlab.evaluation.calibration.effects import Propensity
from steerlab.evaluation.calibration.held_out import Source, source_in
from steerlab.evaluation.calibration.more import more
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.calibration.search import Search, among, z_among
from steerlab.evaluation.calibration.side_effects import FRESH, NEUTRAL, SideEffects, distinct_pairs
from steerlab.evaluation.calibration.sound import SoundDoses
from steerlab.evaluation.calibration.trials import Trial, Trials
from steerlab.evaluation.controls import swaps
from steerlab.evaluation.metrics import likelihood
from steerlab.evaluation.metrics.items import ContrastItem, items_of_pairs
from steerlab.evaluation.metrics.likelihood import propensity
from steerlab.evaluation.metrics.predictions import divergence
from steerlab.evaluation.metrics.texts import Metric
from steerlab.evaluation.statistics import Estimate, critical_z
from steerlab.lab.lab import Lab
from steerlab.progress import Parts
from tests.evaluation import simulated
from tests.evaluation.planted import null_pairs, pairs, planted_lm, shuffled
from tests.tiny import tiny_lm

LENIENT = Limits(fluency=100.0, kl=5.0, distinct=0.0)
QUICK = Options(doses=(0.1, 0.2), controls=8, limits=LENIENT)


@pytest.fixture(scope="module")
def lm():
    return planted_lm()


@pytest.fixture
def lab(lm, tmp_path):
    return Lab(tmp_path / "store", lm)


@pytest.fixture(scope="module")
def planted(lm):
    return lm.extract(pairs(8), layers=3)


@pytest.fixture(scope="module")
def works(lm, planted, tmp_path_factory):
    return calibrate(Lab(tmp_path_factory.mktemp("works") / "store", lm), planted, options=QUICK)


@pytest.fixture
def free(monkeypatch):
    """Steering costs nothing, where that is beside the point: texts take longest."""
    fine = FreshCost(0.0, *[Estimate(1.0, 1.0, 1.0, 24)] * 2, Estimate(0.0, 0.0, 0.1, 24))
    for name, one in (("kl", 0.0), ("fresh", fine)):
        monkeypatch.setattr(SideEffects, name, lambda self, some, *_, one=one: [one] * len(some))


def test_a_planted_direction_is_found_below_the_last_fifth(lab, planted, works):
    found = works
    curve = Curve.of(found)
    assert found.works, curve.reason
    assert found.layer in range(4)
    assert found.dose in (0.1, 0.2)
    assert found.coefficient == pytest.approx(
        lab.at_layers(planted, [found.layer]).coefficient(found.dose)
    )
    assert found.safe == (-0.2, 0.2)
    assert curve.held.z > 4
    assert curve.held.effect.low > 0
    assert [point.dose for point in curve.points] == [-0.2, -0.1, 0.1, 0.2]
    assert [point.effect.mean > 0 for point in curve.points] == [False, False, True, True]
    assert verdict(found).startswith(f"works: layer {found.layer}, dose +0.20")


@pytest.mark.parametrize("unsound", [1, 2, 3, 4])
def test_a_layer_without_a_sound_dose_gives_way_to_the_next_best(
    lab, planted, free, monkeypatch, unsound
):
    first = Curve.of(calibrate(lab, planted, options=QUICK))
    best = sorted(first.layers, key=lambda row: row.effect.mean, reverse=True)
    garbled = {row.layer for row in best[:unsound]}
    assert first.layer == best[0].layer
    assert not first.unsound

    def kl(self, settings, *_):
        return [99.0 if set(setting.layers) & garbled else 0.0 for setting in settings]

    monkeypatch.setattr(SideEffects, "kl", kl)
    found = calibrate(lab, planted, options=QUICK)
    curve = Curve.of(found)
    assert "no dose is sound at" in verdict(found)
    if unsound == len(best):
        assert "every dose has side effects" in verdict(found)
        return
    assert curve.unsound == tuple(row.layer for row in best[:unsound])
    assert curve.layer == best[unsound].layer
    assert not {fold.layer for fold in curve.held.folds} & garbled
    assert "side effects" not in curve.reason


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_and_random_directions_do_not_work(lab, lm, seed, free):
    turned = lm.extract(shuffled(pairs(8, seed)), layers="all")
    random = lm.extract(pairs(8, seed), layers="all", method="random", seed=seed)
    for vector in (turned, random):
        found = calibrate(lab, vector, options=QUICK)
        assert not found.works
        assert (found.layer, found.dose, found.coefficient, found.safe) == (None,) * 4
        assert "no dose beats its control" in verdict(found)
        assert len(Curve.of(found).points) == 4  # what was measured is there all the same


def test_each_compared_layer_has_the_larger_kl_of_both_signs(lab, lm, planted, works):
    curve = Curve.of(works)
    assert curve.profile_dose == 0.1
    for row in curve.layers:
        at = lab.at_layers(planted, [row.layer])
        c = at.coefficient(0.1)
        found = divergence(lm, NEUTRAL[::2], [Setting(at, c), Setting(at, -c)]).nats.mean(axis=1)
        assert row.kl == pytest.approx(found.max(), rel=1e-3)


@pytest.mark.parametrize(
    ("count", "auc", "kept"), [(4, 0.2, 1), (4, 0.1, 0), (8, 0.2, 0), (8, 0.35, 1)]
)
def test_only_layers_that_clearly_fail_to_tell_the_prompts_apart_are_left_out(
    lab, lm, count, auc, kept, monkeypatch
):
    made = pairs(count)
    vector = lm.extract(made, layers="all")
    source = source_in(lab, vector, [1, 2, 3])
    monkeypatch.setattr(source, "separability", lambda b, out: auc if b == 2 else 0.9)
    trials = Trials(source, Recorded(), made[:6], 0, Parts(None, 1))
    found = Search(lab, vector, trials, [1, 2, 3], QUICK).plausible(None)
    assert found == [1, 2, 3] if kept else [1, 3]


def test_a_fold_chooses_as_it_would_on_all_layers(lab, lm, monkeypatch, free):
    """Layers that a few items turn down cost fewer trials, and the final choice skips none."""
    made = pairs(8)
    vector = lm.extract(made, layers="all")
    source = source_in(lab, vector, range(5))
    measure = Propensity(lab, items_of_pairs(lm, made))
    trials = Trials(source, measure, made, 0, Parts(None, 1))
    trials.fetch(map(Trial, trials.items), 1)
    found = Search(lab, vector, trials, range(5), QUICK)
    whole = found.ranges(dict.fromkeys((None, *trials.folds), range(5)))
    asked = {fold: len(trials.choosing(fold, 0, 0.1)) for fold in whole}
    trials = Trials(source, measure, made, 0, Parts(None, 1))
    trials.fetch(map(Trial, trials.items), 1)
    found = Search(lab, vector, trials, range(5), QUICK)
    before = len(trials._values)
    compared = found.compared()
    for fold, ranges in whole.items():
        chosen = compared[fold]
        assert max(chosen, key=chosen.get) == max(ranges, key=ranges.get)
        assert len(chosen) == (5 if fold is None else 4)
    most = sum(5 * n if fold is None else 4 * n + 2 for fold, n in asked.items())
    assert len(trials._values) - before <= 2 * most


def test_a_curve_comes_back_from_its_json(works):
    assert Curve.of(works).to_json() == works.data


def test_the_verdict_is_about_the_point_that_it_names(works):
    curve, said = Curve.of(works), verdict(works)
    point, held = curve.point, curve.held
    assert {(fold.layer, fold.dose) for fold in point.folds} == {(works.layer, works.dose)}
    (dosed,) = (p for p in curve.points if p.dose == works.dose)
    assert point.plus.mean == pytest.approx(dosed.effect.mean)
    assert point.effect.mean == pytest.approx(np.mean(point.values))
    assert held.effect.mean == pytest.approx(np.mean(held.values))
    first, second, up, down, nested, sure, *loose = findings(works)
    assert said == "; ".join(findings(works))
    assert first.startswith(f"works: layer {works.layer}, dose +0.20")
    assert second.startswith(f"range at that point {point.effect.mean:+.2f} (")
    assert up.startswith(f"+0.20: works, {point.plus.mean:+.2f} (")
    assert down.startswith(f"-0.20: works, {point.minus.mean:+.2f} (")
    assert ", control " in down
    assert nested.startswith(
        f"held-out range, layer and dose chosen without its items, {held.effect.mean:+.2f} ("
    )
    assert sure.startswith("8 of 8 held-out items moved the right way: at least 68%")
    assert first.endswith("safe from -0.20 to +0.20 (checked on 24 fresh texts each)")
    for text, found in zip(loose, curve.fresh, strict=True):
        assert text.startswith(f"{round(found.loose.mean * 24)} of 24 fresh texts lost fluency at")


def test_the_verdict_says_what_other_layers_and_the_held_out_range_alone_have_shown(works):
    curve = Curve.of(works)
    here = replace(curve.held.folds[0], layer=curve.layer)
    folds = (here, *(replace(here, layer=b, items=(b, 9)) for b in (7, 8)))
    same = replace(curve, held=replace(curve.held, folds=(here,)))
    assert "measured at" not in verdict(replace(works, data=same.to_json()))
    apart = replace(curve, held=replace(curve.held, folds=folds))
    said = "4 of 6 held-out items measured at layers 7-8: no text was checked there"
    assert said in findings(replace(works, data=apart.to_json()))
    weak = replace(curve, point=replace(curve.point, z=0.1))
    (first, *_) = findings(replace(works, data=weak.to_json()))
    assert first.endswith(", by the held-out range: the effect at this point itself is not shown")


def test_a_dose_turned_down_early_does_not_speak_for_the_safe_ones(works):
    early = replace(fresh(-0.3, 1.9), loose=Estimate(0.5, 0.2, 0.8, 12))
    curve = replace(Curve.of(works), fresh=(early, fresh(-0.2, 1.4), fresh(0.2, 1.4)))
    said = verdict(replace(works, data=curve.to_json()))
    assert "(checked on 24 fresh texts each)" in said
    assert "dose -0.30" not in said


def fresh(dose, high, distinct=1.0):
    return FreshCost(
        dose, Estimate(1.2, 1.1, high, 24), Estimate(1, distinct, 1, 24), Estimate(0.1, 0, 0.2, 24)
    )


def test_the_strongest_dose_gives_way_until_its_whole_interval_is_within_the_limits(
    lab, planted, monkeypatch
):
    said = {0.3: (1.51, 1.0), 0.2: (1.5, 0.89), 0.1: (1.5, 0.9), -0.3: (1.4, 1.0)}
    asked = []

    def measured(self, settings, *_):
        doses = [round(setting.dose, 6) for setting in settings]
        asked.append(doses)
        return [fresh(d, *said[d]) for d in doses]

    monkeypatch.setattr(SideEffects, "fresh", measured)
    found = SoundDoses(SideEffects(lab, Limits()), planted, (0.1, 0.2, 0.3))
    assert found.confirmed((-0.3, 0.3)) == (-0.3, 0.1)
    assert [round(cost.dose, 6) for cost in found.fresh] == [-0.3, 0.1, 0.2, 0.3]
    assert asked == [[-0.3, 0.3], [0.2], [0.1]]
    said |= dict.fromkeys(said, (1.6, 1.0))
    said |= {-0.2: (math.nan, 1.0), -0.1: (1.6, 1.0)}
    assert str(found.confirmed((-0.3, 0.3))) == "(0.0, 0.0)"
    assert found.confirmed((0.0, 0.0)) == (0.0, 0.0)
    assert found.fresh == ()


def test_fresh_texts_are_others_than_those_that_choose(lab, planted):
    assert not set(FRESH) & set(NEUTRAL)
    assert len(set(FRESH)) == 24
    setting = Setting(planted, planted.coefficient(-0.1))
    (found,) = SideEffects(lab, LENIENT).fresh([setting], [None], 1)
    assert found.dose == pytest.approx(-0.1)
    assert found.fluency.low <= found.fluency.mean <= found.fluency.high
    assert (found.fluency.n, found.loose.n, found.loose.mean) == (24, 24, 0.0)


def test_a_dose_that_half_of_the_fresh_texts_turn_down_gets_no_more(lab, planted, monkeypatch):
    written = []
    write = side_effects.written

    def counted(lab, rows, **how):
        written.append(len(rows))
        return write(lab, rows, **how)

    monkeypatch.setattr(side_effects, "written", counted)
    settings = [Setting(planted, planted.coefficient(d)) for d in (0.1, -0.1)]
    strict = SideEffects(lab, Limits(fluency=1e-3)).fresh(settings, [None, None], 1)
    assert [cost.loose.n for cost in strict] == [12, 12]
    assert written == [3 * 12]
    written.clear()
    found = SideEffects(lab, LENIENT)
    whole = found.fresh(settings, [None, None], 1)
    assert [cost.loose.n for cost in whole] == [24, 24]
    assert written == [3 * 12, 3 * 12]  # none of them twice
    assert found.fresh(settings[::-1], [None, None], 1) == whole[::-1]
    assert written == [36, 36]


def test_texts_of_a_dose_that_may_follow_are_written_along(lab, planted, monkeypatch):
    written = []
    write = side_effects.written

    def counted(lab, rows, **how):
        written.append([round(row[0].dose, 6) for row in rows[::12]])
        return write(lab, rows, **how)

    monkeypatch.setattr(side_effects, "written", counted)
    doses = (0.1, 0.2, 0.3)
    alone, strict = SideEffects(lab, LENIENT), Limits(fluency=1e-3)
    expected = alone.fresh([Setting(planted, planted.coefficient(0.2))], [None], 1)
    written.clear()
    effects = SideEffects(lab, strict)
    found = SoundDoses(effects, planted, doses)
    assert found.confirmed((-0.1, 0.3)) == (0.0, 0.0)
    assert written == [[0.0, -0.1, 0.3, 0.2], [0.1]]
    assert [cost.loose.n for cost in found.fresh] == [12] * 4
    effects.limits = LENIENT
    again = effects.fresh([Setting(planted, planted.coefficient(0.2))], [None], 1)
    assert again[0].fluency.mean == pytest.approx(expected[0].fluency.mean, rel=1e-5)
    assert (again[0].distinct, again[0].loose) == (expected[0].distinct, expected[0].loose)


def test_only_doses_that_are_certain_to_follow_are_written_along_later(lab, planted, monkeypatch):
    """A dose that half of the texts let pass is likely to stay; a text is scored if it is asked."""
    written, scored = [], []
    write, score = side_effects.written, likelihood.perplexities

    def counted(lab, rows, **how):
        written.append([round(row[0].dose, 6) for row in rows[::12]])
        return write(lab, rows, **how)

    def measured(lm, prompts, made, **how):
        scored.append(len(made) // 12)
        return score(lm, prompts, made, **how)

    monkeypatch.setattr(side_effects, "written", counted)
    monkeypatch.setattr(likelihood, "perplexities", measured)
    monkeypatch.setattr(FreshCost, "beyond", lambda self, limits: self.dose < 0)
    monkeypatch.setattr(FreshCost, "within", lambda self, limits: self.dose > -0.15)
    found = SoundDoses(SideEffects(lab, LENIENT), planted, (0.1, 0.2, 0.3))
    assert found.confirmed((-0.2, 0.3)) == (-0.1, 0.3)
    assert written == [[0.0, -0.2, 0.3, -0.1, 0.2], [0.0, 0.3]]
    assert scored == [3, 2, 1]


@pytest.mark.parametrize(
    ("high", "distinct", "beyond"), [(1.8, 1.0, False), (1.9, 1.0, True), (1.3, 0.79, True)]
)
def test_a_dose_is_turned_down_early_only_where_half_the_interval_reaches_beyond(
    high, distinct, beyond
):
    assert fresh(0.1, high, distinct).beyond(Limits()) is beyond


def test_texts_are_written_only_for_the_doses_that_decide(lab, planted, monkeypatch):
    asked = []

    def measured(self, settings, *_):
        doses = [round(setting.dose, 6) for setting in settings]
        asked.append(doses)
        return [fresh(d, 1.6 if d in (-0.4, -0.3) else 1.5) for d in doses]

    kl = {0.5: 0.46, -0.1: 0.44, -0.2: None}
    monkeypatch.setattr(SideEffects, "fresh", measured)
    monkeypatch.setattr(
        SideEffects, "kl", lambda self, some, _: [kl.get(round(x.dose, 6), 0.4) for x in some]
    )
    effects, doses = SideEffects(lab, Limits(kl=0.45)), (0.1, 0.2, 0.3, 0.4, 0.5)
    found = SoundDoses(effects, planted, doses)
    assert found.run() == (-0.1, 0.4)  # -0.2 overflows: what lies beyond is not tried
    assert asked == [[-0.1, 0.4]]
    assert found.costs[0.4] == Cost(0.4, 1.2, 1.0)
    assert found.costs[0.2] == Cost(0.4)
    kl[-0.2] = 0.4
    asked.clear()
    assert SoundDoses(effects, planted, doses).run() == (-0.5 + 0.0, 0.4)
    kl[-0.5] = 0.46
    asked.clear()
    assert SoundDoses(effects, planted, doses).run() == (-0.2, 0.4)
    assert asked == [[-0.4, 0.4], [-0.3], [-0.2]]
    kl[0.1] = 0.46  # whatever follows
    assert SoundDoses(effects, planted, doses).run() == (-0.2, 0.0)


def test_z_is_among_the_controls_that_scatter_more(works):
    held = Curve.of(works).held
    assert (held.controls.n, held.shuffled.n) == (8, 12)
    assert held.wider.sd == max(held.controls.sd, held.shuffled.sd)
    assert held.z == pytest.approx((held.effect.mean - held.wider.mean) / held.wider.sd)
    for sd, said in ((9.0, "12 shuffled-label vectors"), (0.0, "8 random directions")):
        made = replace(held, shuffled=replace(held.shuffled, sd=sd))
        data = replace(Curve.of(works), held=made).to_json()
        assert f"against {said}; 8 of 8" in verdict(replace(works, data=data))


def test_controls_that_are_too_few_or_equal_give_no_z():
    assert z_among(2.0, Controls(0.0, 1.0, 5)) == 2.0
    assert z_among(2.0, Controls(0.0, 1.0, 4)) is None
    assert z_among(2.0, Controls(0.0, 0.0, 8)) is None
    assert z_among(2.0, controls_of([math.nan] * 8)) is None


@pytest.mark.parametrize("count", [4, 8])
def test_shuffled_vectors_have_half_of_the_pairs_swapped(lab, lm, count):
    vector = lm.extract(pairs(count), layers=[1, 3])
    source = source_in(lab, vector, [1, 3])
    assert source.shuffles == min(12, math.comb(count, count // 2))
    draws = swaps(count, range(source.shuffles))
    for number in (0, 5):
        made = zip(draws[number], pairs(count), strict=True)
        turned = lm.extract([(n, p) if s else (p, n) for s, (p, n) in made], layers=[1, 3])
        for b in (1, 3):
            made = source.shuffled(b, number)
            assert made.cosines(turned)[b] == pytest.approx(1.0)
            assert made.norm == pytest.approx(vector[b].norm)


def test_what_has_no_labels_or_too_few_is_not_shuffled(lm, lab, planted):
    def of(vector):
        return source_in(lab, vector, [3])

    assert of(random_like(planted, 0)).shuffles == 0
    assert of(lm.extract(pairs(3), layers=3)).shuffles == 0
    assert of(lm.extract(pairs(4), layers=3, method="pca")).shuffles == 0
    lab.store.save("four", lm.extract(pairs(4, 1), layers=3))
    lab.store.save("eight", planted)
    both = lab.evaluate("unit(four) - 0.5 * eight")
    source = of(both)
    assert source.shuffles == 6
    assert source.shuffled(3, 2).norm == pytest.approx(both.norm)
    assert abs(source.shuffled(3, 2).cosines(both)[3]) < 0.8
    lab.store.save("found", random_like(planted, 0))
    mixed = lab.evaluate("four + found")
    assert of(mixed).shuffles == 0


@pytest.mark.parametrize(
    ("changes", "safe", "words"),
    [
        ({}, (-0.2, 0.2), ("works", "works")),
        ({}, (-0.1, 0.2), ("works", "unsafe")),
        ({"minus": Estimate(-1.6, -3.8, 0.1, 8)}, (-0.2, 0.2), ("works", "not shown")),
        ({"plus": Estimate(0.4, 0.1, 0.7, 8)}, (-0.2, 0.2), ("not shown", "works")),
        ({"minus": Estimate(2.0, 1.0, 3.0, 8)}, (-0.2, 0.2), ("works", "not shown")),
        ({"plus_controls": None}, (-0.2, 0.2), ("not shown", "works")),
    ],
)
def test_each_side_has_its_own_word(works, changes, safe, words):
    point = replace(Curve.of(works).point, **changes)
    said = [side(replace(works, safe=safe), point, sign) for sign in (1, -1)]
    assert [text.split(": ")[1].split(",")[0] for text in said] == list(words)


def test_too_few_items_are_said_with_how_many_would_do(works):
    held = replace(Curve.of(works).held, values=(5.0, 1.0, 0.2, 0.4))
    data = replace(Curve.of(works), held=replace(held, effect=Estimate(1.6, -4, 212, 4))).to_json()
    assert "too few items: 4 leave the interval wider" in verdict(replace(works, data=data))
    assert lacking(held).endswith("add contrast pairs, or give --items)")
    assert "too few" not in verdict(works)


def test_more_items_tighten_the_guarantee_at_the_same_point(lab, lm, planted, works):
    items = [ContrastItem("", *pair) for pair in pairs(6, seed=9)]
    with pytest.raises(NotFound, match="no calibration that works"):
        more(lab, planted, items)
    lab.store.save("kind", planted)
    lab.store.results.save_calibration(works)
    found = more(lab, planted, items[:4])
    at = lab.at_layers(planted, [works.layer])
    up, down = (propensity(lm, items[:4], [Setting(at, s * works.coefficient)])[0] for s in (1, -1))
    curve = Curve.of(found)
    assert curve.added == pytest.approx((up - down).tolist())
    assert "12 of 12 held-out items moved the right way: at least 77%" in verdict(found)
    assert "(95%, Clopper-Pearson), 4 of them added later" in verdict(found)
    assert replace(found, data=None) == replace(works, data=None)
    lab.store.results.save_calibration(found)
    whole = Curve.of(more(lab, planted, items))  # two of these are new
    assert whole.added[:4] == curve.added
    assert len(whole.added) == len(whole.keys) == 6
    with pytest.raises(BadPrompts, match="negative side of item 5 are the same"):
        more(lab, planted, [*items[:4], ContrastItem("I am", " so", " so")])
    for again in (items[:4], [ContrastItem("", *pair) for pair in pairs(8)]):
        with pytest.raises(BadPrompts, match="were measured before, or are pairs that"):
            more(lab, planted, again)


def test_more_items_are_none_that_were_given_before(lab, lm, planted, free):
    given = [ContrastItem(a[:4], a[4:], b[4:]) for a, b in pairs(6, seed=5)]
    found = calibrate(lab, planted, items=given, options=QUICK)
    assert found.works
    assert len(Curve.of(found).keys) == 6
    lab.store.save("kind", planted)
    lab.store.results.save_calibration(found)
    again = [ContrastItem("", a, b) for a, b in pairs(6, seed=5)]
    with pytest.raises(BadPrompts, match="all 6 items were measured before"):
        more(lab, planted, again)
    data = {**found.data, "measure": "vader"}
    lab.store.results.save_calibration(replace(found, data=data))
    with pytest.raises(BadPrompts, match="was calibrated by vader of texts"):
        more(lab, planted, again)


@pytest.mark.parametrize("z", [-3.9, 0.5, None])
def test_a_negative_z_is_not_shown_rather_than_the_wrong_way(works, z):
    held = replace(Curve.of(works).held, z=z, critical=2.0)
    said = why_not(held, (-0.1, 0.1))
    shown = "-" if z is None else f"{z:+.1f}"
    assert said == f"no dose beats its control (held-out z {shown}, needed 2.0)"
    scattered = replace(held, values=(4.0, -3.0, 1.0, 0.5))
    assert "add contrast pairs, or give --items" in why_not(scattered, (-0.1, 0.1))


def test_calibrations_of_earlier_versions_are_read(works):
    data = {key: value for key, value in works.data.items() if key != "point"}
    added = ("values", "plus_controls", "minus_controls")
    data["held"] = {key: x for key, x in data["held"].items() if key not in added}
    curve = Curve.of(replace(works, data=data))
    assert curve.point is None
    assert "held-out range" in verdict(replace(works, data=data))


class Recorded:
    """A measure that writes down what it is asked for."""

    name, count = "recorded", 6

    def __init__(self):
        self.asked = []

    def values(self, requests, *, progress=None, should_stop=None):
        self.asked.append([item for item, _ in requests])
        return np.array([setting.dose or 0.0 for _, setting in requests])


def test_what_is_chosen_for_a_fold_has_not_seen_it(lab, lm):
    made = pairs(6)
    vector = lm.extract(made, layers="all")
    source = source_in(lab, vector, [0, 1, 2])
    trials = Trials(source, Recorded(), made, 0, Parts(None, 1))
    for fold in trials.folds:
        mine = trials.of_fold(fold)
        for trial in trials.choosing(fold, 1, 0.1):
            assert trial.item not in mine
            assert trial.without == {fold, trials.fold_of[trial.item]}
        for trial in trials.reporting(fold, 1, 0.1):
            assert trial.item in mine
            assert trial.without == {fold}
    for trial in trials.choosing(None, 1, 0.1):
        kept = [p for i, p in enumerate(made) if trials.fold_of[i] not in trial.without]
        fresh = lm.extract(kept, layers=1)
        assert made[trial.item] not in kept
        np.testing.assert_allclose(
            trials.setting(trial).vector.directions[1], fresh.directions[1], atol=1e-5
        )


def test_layers_of_a_fold_are_compared_by_trials_that_have_not_seen_it(lab, lm, free):
    """Folds are measured together, but what others may look at changes nothing for a fold."""
    made = pairs(6)
    vector = lm.extract(made, layers="all")
    source = source_in(lab, vector, range(5))
    measure = Propensity(lab, items_of_pairs(lm, made))
    trials = Trials(source, measure, made, 0, Parts(None, 1))
    found = Search(lab, vector, trials, range(5), QUICK)
    compared, values = found.compared(), dict(trials._values)
    for fold in trials.folds:
        seen = [t for t in values if fold not in t.without or trials.fold_of[t.item] == fold]
        trials._values = values | dict.fromkeys(seen, 99.0)
        assert found.compared()[fold] == compared[fold]
    assert found.compared()[None] != compared[None]


def test_a_layer_where_nothing_is_left_of_the_direction_does_nothing(lab, lm, free):
    alike = [(f"{a}{b}!", f"{b}{a}!") for a, b in ("ab", "cd", "ef", "gh")]
    vector = lm.extract(alike, layers="all")
    assert not vector[0].norm  # layer 0 sees the last token alone
    found = calibrate(lab, vector, options=QUICK)
    assert Curve.of(found).layer > 0


def test_a_pair_that_two_operands_share_is_left_out_of_both(lab, lm):
    lab.store.save("a", lm.extract(pairs(4), layers="all"))
    lab.store.save("b", lm.extract(pairs(4)[:3] + null_pairs(2, 9), layers="all"))
    both = lab.evaluate("a - 0.5 * b")
    source = source_in(lab, both, [2])
    assert source.pairs[:4] == tuple(pairs(4))
    assert source.pairs[4:] == tuple((low, high) for high, low in null_pairs(2, 9))
    out = [pairs(4)[0]]
    expected = lm.extract(pairs(4)[1:], layers=2) - 0.5 * lm.extract(
        pairs(4)[1:3] + null_pairs(2, 9), layers=2
    )
    np.testing.assert_allclose(source.at(2, out).directions[2], expected.directions[2], atol=1e-5)


def test_the_operands_of_an_operand_are_its_own(lab, lm):
    for name, made in (("a", pairs(4)), ("b", null_pairs(4, 9)), ("c", null_pairs(4, 5))):
        lab.store.save(name, lm.extract(made, layers="all"))
    lab.store.save("inner", lab.evaluate("b - c"))
    outer = lab.store.save("outer", lab.evaluate("a - inner"))
    source = source_in(lab, outer, [2])
    assert len(source.pairs) == 12
    assert source.at(2).cosines(outer)[2] == pytest.approx(1.0)


def test_a_composition_is_calibrated_on_the_pairs_of_its_operands(lab, lm, free):
    lab.store.save("few", lm.extract(pairs(3), layers=1))
    lab.store.save("many", lm.extract(null_pairs(7, 3), layers=1))
    lab.store.save("two", lm.extract(pairs(2, 4), layers=1))
    curve = Curve.of(calibrate(lab, lab.evaluate("few - many"), options=QUICK))
    assert (curve.items, curve.crossed) == (10, True)
    with pytest.raises(BadPrompts, match=r"no held-out items: two\.v1"):
        calibrate(lab, lab.evaluate("two - many"), options=QUICK)


@pytest.mark.parametrize("name", ["mc", "difference", "front", "a + mc", "front - late"])
def test_what_has_no_pairs_is_made_at_all_layers(lab, lm, free, name):
    up, down = zip(*pairs(6), strict=True)
    front = {"layers": 1, "method": "actadd"}
    lab.store.save("mc", lm.extract(up, layers=1, method="mean_centred", baseline=down))
    lab.store.save("difference", lm.extract(pairs(6), layers=1, method="difference_of_means"))
    lab.store.save("front", lm.extract(pairs(1), **front))
    lab.store.save("late", lm.extract(pairs(2)[1:], **front))
    lab.store.save("a", lm.extract(pairs(4, 3), layers=1))
    vector = lab.store.save("made", lab.evaluate(name))
    items = [ContrastItem(f"{i} {up[i]} {down[i]} {up[0]}", " good", " bad") for i in range(5)]
    found = calibrate(lab, vector, items=items, options=QUICK)
    assert found.digest == vector.digest
    assert Curve.of(found).candidates == (0, 1, 2, 3)
    layer = Curve.of(found).layer
    assert Curve.of(calibrate(lab, vector, items=items, layers=layer, options=QUICK)).layer == layer


def test_a_vector_of_other_weights_is_calibrated_at_its_own_layers(lab, lm, planted, free):
    other = SteeringVector(
        planted.directions,
        model=replace(planted.model, fingerprint="other"),
        recipe=planted.recipe,
        residual_norms=planted.residual_norms,
    )
    items = items_of_pairs(lm, pairs(6, seed=5))
    found = calibrate(lab, other, items=items, options=replace(QUICK, allow_other_weights=True))
    assert Curve.of(found).candidates == (3,)


def test_an_imported_vector_needs_items_and_takes_them(lab, lm, planted, free):
    imported = random_like(planted, 1)
    with pytest.raises(BadPrompts, match=r"no held-out items.*--items"):
        calibrate(lab, imported, options=QUICK)
    items = items_of_pairs(lm, pairs(6, seed=5))
    assert not calibrate(lab, imported, items=items, options=QUICK).works
    known = calibrate(lab, planted, items=items, options=QUICK)
    assert known.works
    assert not Curve.of(known).crossed


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_or_items_are_no_held_out_items(lab, lm, planted, count):
    with pytest.raises(BadPrompts, match="no held-out items"):
        calibrate(lab, lm.extract(pairs(count), layers=1), options=QUICK)
    with pytest.raises(BadPrompts, match="no held-out items"):
        calibrate(lab, planted, items=items_of_pairs(lm, pairs(count)), options=QUICK)


def test_a_metric_of_texts_can_be_the_effect(lab, planted, free):
    def kind(text):
        return sum(letter in "abcdefgh" for letter in text) / max(len(text), 1)

    found = calibrate(
        lab,
        planted,
        metric=Metric("kind", "", kind),
        prompts=NEUTRAL[:4],
        layers=[3],
        options=QUICK,
    )
    curve = Curve.of(found)
    assert curve.measure == "kind"
    assert curve.held.effect.mean > 0


def test_a_scorer_without_any_value_is_one_line(lab, planted):
    def fails(text):
        raise ValueError("no such lexicon")

    with pytest.raises(BadOption, match=r"fails has no value.*no such lexicon"):
        calibrate(lab, planted, metric=Metric("fails", "", fails), layers=[3], options=QUICK)


def test_a_layer_without_a_direction_is_one_line(lab, lm, planted):
    items = items_of_pairs(lm, pairs(4))
    with pytest.raises(Incompatible, match="was imported at layers 3"):
        calibrate(lab, random_like(planted, 3), items=items, layers=[1], options=QUICK)


def test_a_vector_for_the_first_tokens_is_calibrated_on_given_items(lab, lm, free):
    front = lm.extract([("cab", "vut")], layers=1, method="actadd")
    items = items_of_pairs(lm, pairs(4))
    found = calibrate(lab, front, items=items, layers=[1, 2], options=QUICK)
    assert found.digest == front.digest
    assert [row.layer for row in Curve.of(found).layers] == [1, 2]


def test_layers_of_the_last_fifth_are_refused(lab, planted):
    with pytest.raises(BadOption, match="last fifth"):
        calibrate(lab, planted, layers=[4], options=QUICK)


def test_cancelling_stores_nothing(lab, planted):
    with pytest.raises(Cancelled):
        calibrate(lab, planted, options=QUICK, should_stop=lambda: True)


def test_progress_ends_where_it_said(lab, planted):
    seen = []
    calibrate(lab, planted, options=QUICK, progress=lambda *at: seen.append(at))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (1000, 1000)
    assert seen[-2][0] < 1000


# limits


def test_a_loop_is_fluent_and_fails_all_the_same():
    assert distinct_pairs([5] * 40) < 0.03
    assert distinct_pairs([7]) == distinct_pairs([]) == 0
    loop = fresh(0.1, 0.2, distinct=distinct_pairs([5] * 40))
    assert not loop.within(Limits())
    assert loop.beyond(Limits())
    assert fresh(0.1, 1.5, distinct=0.9).within(Limits())


def test_texts_without_a_perplexity_are_not_sound(lab):
    unknown = FreshCost(0.1, Estimate(math.nan), Estimate(1, 1, 1, 24), Estimate(1, 1, 1, 24))
    assert not unknown.within(Limits())
    assert not unknown.beyond(Limits())


def test_options_refuse_what_makes_no_sense():
    for wrong in ({"doses": ()}, {"doses": (-0.1,)}, {"controls": 4}, {"seed": -1}):
        with pytest.raises(BadOption):
            Options(**wrong)
    for wrong in (Limits(kl=-1.0), Limits(fluency=math.nan), Limits(distinct=math.inf)):
        with pytest.raises(BadOption, match="must be 0 or more, and finite, not"):
            Options(limits=wrong)


def test_a_critical_z_grows_with_tries_and_with_few_controls():
    assert critical_z(20) == pytest.approx(1.729 * (1 + 1 / 20) ** 0.5, abs=2e-3)
    assert critical_z(20) < critical_z(20, 14) < critical_z(5, 14)
    rng = np.random.default_rng(0)
    best = rng.standard_normal((4000, 14))
    controls = rng.standard_normal((4000, 14, 20))
    z = (best - controls.mean(axis=2)) / controls.std(axis=2, ddof=1)
    assert (z.max(axis=1) >= critical_z(20, 14)).mean() == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("tried", [1, 5, 14])
@pytest.mark.parametrize("pairs", [4, 8])
@pytest.mark.parametrize("scatter", [1, 1.5, 3])
def test_few_nulls_reach_the_critical_z_among_the_wider_controls(tried, pairs, scatter):
    """scatter: of the null and of shuffled labels, relative to random directions."""
    rng, cases = np.random.default_rng(0), 5000
    apart = np.abs(np.subtract.outer(np.arange(tried), np.arange(tried))) * 24 / max(tried, 8)
    alike = np.linalg.cholesky(np.interp(apart, (0, 3, 15), (1, 0.84, 0.45)) + 1e-6 * np.eye(tried))

    def effects(count):
        return rng.standard_normal((cases, count, tried)) @ alike.T

    null, random = scatter * effects(1), effects(20)
    turned = scatter * effects(3 if pairs == 4 else 12)
    if pairs == 4:  # three ways to halve them, and their negatives
        turned = np.concatenate([turned, -turned], axis=1)
    best = null.argmax(axis=2)[..., None]
    null, random, turned = (
        np.take_along_axis(x, best, axis=2)[..., 0] for x in (null, random, turned)
    )
    wide = turned.std(axis=1, ddof=1) > random.std(axis=1, ddof=1)
    reached = np.zeros(cases, dtype=bool)
    for chosen, some in ((wide, turned), (~wide, random)):
        z = (null[:, 0] - some.mean(axis=1)) / some.std(axis=1, ddof=1)
        reached |= chosen & (z >= max(critical_z(20, tried), among(some.shape[1], tried)))
    assert reached.mean() <= 0.055


def test_few_shuffled_vectors_ask_for_a_higher_z(free):
    for shared in (0.0, 1.0):  # without meaning, and with
        found = [
            Curve.of(simulated.search(simulated.World(1, shared, n)).run()).held for n in (4, 8)
        ]
        for held, few in zip(found, (6, 12), strict=True):
            assert held.shuffled.n == few
            assert held.critical == max(critical_z(8, 3), among(held.wider.n, 3))


# bad input


def test_one_pair_is_too_few_in_one_line(lab, lm):
    with pytest.raises(BadPrompts) as caught:
        calibrate(lab, lm.extract(pairs(1), layers=1), options=QUICK)
    said = str(caught.value)
    assert "has only 1 contrast pair of its own, and leaving some out takes 3" in said
    assert "\n" not in said


def test_an_item_counts_once_and_has_two_sides(lab, planted, free):
    one, two, three = (ContrastItem(a[:4], a[4:], b[4:]) for a, b in pairs(3, seed=5))
    with pytest.raises(BadPrompts, match="no held-out items: 1 different item"):
        calibrate(lab, planted, items=[one] * 6, options=QUICK)
    split = ContrastItem("", one.prompt + one.positive, one.prompt + one.negative)
    with pytest.raises(BadPrompts, match="2 different items are too few"):
        calibrate(lab, planted, items=[one, split, two], options=QUICK)
    same = ContrastItem("ab", "c", "c")
    with pytest.raises(BadPrompts, match="side of item 3 are the same"):
        calibrate(lab, planted, items=[one, two, same, three], options=QUICK)
    found = calibrate(lab, planted, items=[one, two, three, one, two], options=QUICK)
    assert Curve.of(found).items == 3


def test_a_metric_at_its_limit_for_every_text_says_so(lab, planted, free):
    full = Metric("full", "", lambda text: 1.0)
    found = calibrate(lab, planted, metric=full, prompts=NEUTRAL[:3], layers=[3], options=QUICK)
    assert verdict(found) == (
        "is not shown to work: neither the vector nor any control moves an item: nothing can be "
        "shown with these items, or this metric"
    )


def test_logits_that_overflow_at_the_smallest_dose_are_one_line(lab, planted, monkeypatch):
    measure = Propensity.values

    def overflowing(self, requests, **watch):
        found = measure(self, requests, **watch)
        return np.where([setting.is_baseline for _, setting in requests], found, np.nan)

    monkeypatch.setattr(Propensity, "values", overflowing)
    monkeypatch.setattr(SideEffects, "kl", lambda self, some, *_: [None] * len(some))
    found = calibrate(lab, planted, options=QUICK)
    assert verdict(found) == (
        "is not shown to work: the model's logits overflow at every dose, even at ±0.1: try "
        "smaller --doses"
    )
    assert all(point.z is None and not point.sound for point in Curve.of(found).points)


# honesty


def held_out_null(lm, lab, seed: int):
    """The held-out effect of a random vector on items whose two sides are alike."""
    made = null_pairs(8, 5000 + seed)
    vector = lm.extract(made[:2], layers=[1, 2], method="random", seed=seed)
    measure = Propensity(lab, items_of_pairs(lm, made))
    trials = Trials(Source(vector), measure, (), seed, Parts(None, 1))
    trials.fetch(map(Trial, trials.items), 1)
    found = Search(lab, vector, trials, [1, 2], Options(doses=(0.15,), controls=5))
    compared = found.compared()
    layers = {fold: max(ranges, key=ranges.get) for fold, ranges in compared.items()}
    return found.held_out_effect(layers, dict.fromkeys(layers, 0.15), tried=2)


@pytest.mark.campaign
def test_of_500_random_vectors_few_seem_to_do_something(tmp_path):
    """The layer is chosen for each, as for a vector that works.

    It is 7%, and with one layer, where nothing is chosen, 3%: folds share what they choose from.
    No verdict hangs on the interval alone.
    """
    lm = tiny_lm(num_hidden_layers=3)
    lab = Lab(tmp_path / "store", lm)
    found = [held_out_null(lm, lab, seed) for seed in range(500)]
    excluded = sum(h.effect.low > 0 or h.effect.high < 0 for h in found) / len(found)
    assert 0.02 <= excluded <= 0.09
    assert sum(held.beats_chance for held in found) <= 10
