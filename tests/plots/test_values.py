"""Calibrations and evaluations as pictures: the figures are those that were measured."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab.core.results import Calibration, Measured
from steerlab.errors import CorruptPayload
from steerlab.evaluation.statistics import Estimate
from steerlab.plots import figures
from steerlab.plots.calibration import layers_of, response_of
from steerlab.plots.generalization import effect_panels, tables
from steerlab.plots.values import DoseResponse
from tests.evaluation.measurements import calibration, evaluation, point

DIGEST = "d" * 64


def test_a_calibrations_curve_is_drawn_with_the_baseline_in_its_middle():
    found = response_of(calibration(DIGEST), "love.v1")
    assert [p.dose for p in found.points] == [-0.4, -0.2, 0.0, 0.2, 0.4]
    for p in found.points:
        assert p.effect.mean == pytest.approx(10 * p.dose)
        assert (p.controls.mean, p.controls.sd) == ((0.1, 0.5) if p.dose else (0.0, 0.0))
        assert p.sound == (abs(p.dose) < 0.3)
    assert (found.layer, found.safe, found.chosen, found.controls) == (2, (-0.2, 0.2), 0.2, 16)
    assert found.unit == "log-odds (nats)"
    assert response_of(calibration(DIGEST, measure="vader"), "x").unit == "vader"
    assert found.at_chosen == found.points[3]


def test_one_that_does_not_work_has_a_curve_and_no_choice():
    found = calibration(DIGEST, reason="no dose beats its control")
    response = response_of(found, "x")
    assert (response.safe, response.chosen, response.at_chosen) == (None, None, None)


def test_the_layers_that_were_compared_are_a_profile():
    found, cost = layers_of(calibration(DIGEST))
    assert found.layers == cost.layers == (2, 3)
    assert found.values == (2.0, 3.0)
    assert found.band == ((1.5, 2.5), (2.5, 3.5))
    assert found.level == 0.0
    assert cost.values == (0.2, 0.3)
    assert layers_of(calibration(DIGEST, layers=(2,))) == ()


def test_a_calibration_from_before_layers_had_a_cost_shows_their_effect():
    made = calibration(DIGEST)
    for row in made.data["layers"]:
        del row["kl"]
    assert [profile.values for profile in layers_of(made)] == [(2.0, 3.0)]


def test_a_calibration_that_is_none_is_refused():
    with pytest.raises(CorruptPayload, match="can't be read"):
        response_of(Calibration(DIGEST, False, data={"points": 3}), "x")


def test_an_interval_far_beyond_all_means_runs_out_of_the_picture():
    wild = (Estimate(1.0, 0.5, 500.0, 4), Estimate(2.0, -400.0, 2.5, 4))
    points = tuple(point(d, e, (0.0, 0.2)) for d, e in zip((0.1, 0.2), wild, strict=True))
    found = DoseResponse("x", "nats", points)
    low, high = found.window
    assert low < -0.4
    assert high > 2.0
    assert high - low < 9
    assert figures.dose_response(found).axes[0].get_ylim() == pytest.approx((low, high))
    calm = DoseResponse("x", "nats", (point(0.1, Estimate(1.0, 0.8, 1.2, 4)),)).window
    assert calm[0] < 0
    assert calm[1] > 1.2


def test_an_evaluations_styles_stand_beside_their_controls():
    (found,) = effect_panels(evaluation(DIGEST), "love.v1")
    assert (found.metric, [row.style for row in found.rows]) == (
        "vader",
        ["statements", "dialogue"],
    )
    first, second = found.rows
    assert (first.effect.mean, first.effect.low) == pytest.approx((0.9, 0.7))
    assert (first.effect.mean - first.control.mean) / first.control.sd == pytest.approx(4.5)
    assert first.shuffled == 0.05
    assert (first.finding, second.finding) == ("generalizes", "no effect")


def test_the_effects_are_drawn_where_they_are():
    panels = effect_panels(evaluation(DIGEST), "love.v1")
    figure = figures.generalization(panels)
    (axes,) = figure.axes
    effect = next(line for line in axes.lines if "95%" in str(line.get_label()))
    np.testing.assert_allclose(effect.get_xdata(), [0.9, 0.1])
    bars = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    sd = 0.9 / 4.5
    assert bars[0] == pytest.approx((-2 * sd, 2 * sd))
    assert [t.get_text() for t in axes.texts] == ["generalizes", "no effect"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["statements", "dialogue"]
    assert len(figures.generalization([*panels, *panels]).axes) == 2


def test_an_evaluation_in_words_has_effects_and_prices_apart():
    effects, prices = tables(evaluation(DIGEST))
    assert effects.settings == ("baseline", "signed range", "random", "z", "shuffled")
    assert list(effects.rows) == [("statements", "vader"), ("dialogue", "vader")]
    assert effects.rows["statements", "vader"] == (
        ("0.30", ""),
        ("+0.90", "+0.70 to +1.10"),
        ("+0.00", ""),
        ("+4.50", ""),
        ("+0.05", ""),
    )
    assert prices.settings == ("toward",)
    assert prices.rows["dialogue", "fluency ratio"] == (("1.20", "1.00 to 1.40"),)


def test_an_evaluation_of_other_origin_is_shown_as_far_as_it_goes():
    from dataclasses import replace

    bare = replace(evaluation(DIGEST), data=None, values=(Measured("a", "b", "c", 1.0),))
    assert [table.settings for table in tables(bare)] == [("c",)]
    assert effect_panels(bare, "x") == ()
