"""What a calibration changes in the terminal UI: where the lab begins, the band, the curves."""

import shutil
import sqlite3
from dataclasses import replace

import pytest
from textual.widgets import Input, Static
from textual_plotext import PlotextPlot

from steerlab import Lab, Store
from steerlab.core.results import Calibration
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import Limits
from steerlab.evaluation.calibration.options import Options
from steerlab.tui.detail.curves import Curves
from steerlab.tui.detail.overview import calibrated as in_a_line
from steerlab.tui.expression_line import ExpressionLine, Meaning
from steerlab.tui.workbench.strength import Strength
from tests.evaluation.planted import pairs, planted_lm
from tests.tui.driver import Session

LENIENT = Limits(fluency=100.0, kl=5.0, distinct=0.0)
QUICK = Options(doses=(0.1, 0.2), controls=5, limits=LENIENT)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Lab:
    """kind is stored at layer 1 and works elsewhere; plain was never calibrated."""
    lab = Lab(Store(tmp_path_factory.mktemp("tui") / "store"), planted_lm())
    kind = lab.extract("kind", pairs(8), layers=1)
    lab.extract("plain", pairs(4, seed=1), layers=1)
    lab.store.results.save_calibration(calibrate(lab, kind, options=QUICK))
    return lab


async def choose(user, name: str) -> None:
    user.line.put(name)
    await user.until(lambda: user.line.meaning.text == name and not user.line.chosen)


async def test_a_chosen_vector_begins_where_it_was_calibrated(calibrated):
    found = calibrated.store.results.calibration("kind")
    assert found.layer != 1
    async with Session(calibrated) as user:
        await choose(user, "kind")
        setup, strength = user.lab_panel.setup, user.lab_panel.query_one(Strength)
        assert (setup.layers, setup.dose) == (str(found.layer), found.dose)
        assert setup.coefficient == pytest.approx(found.coefficient)
        assert strength.safe == found.safe
        meaning = str(user.line.query_one("#meaning", Static).render())
        assert f"layer 1, calibrated at {found.layer}  dose" in meaning
        assert f"dose {found.dose / found.coefficient:.2f} per c" in meaning
        await choose(user, "plain")
        assert user.lab_panel.setup.layers == ""
        assert strength.safe is None


async def test_a_damaged_calibration_is_said_and_hides_no_vector(calibrated, tmp_path):
    lab = Lab(Store(shutil.copytree(calibrated.store.path, tmp_path / "store")), calibrated.model)
    with sqlite3.connect(lab.store.path / "registry.db") as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute("UPDATE calibration SET data = '{'")
    connection.close()
    async with Session(lab) as user:
        await user.until(lambda: user.at == "kind")
        await user.until(lambda: any("is damaged" in said for said in user.said))


async def test_a_late_answer_about_another_text_leaves_what_was_chosen_meanwhile(calibrated):
    found = calibrated.store.results.calibration("kind")
    async with Session(calibrated) as user:
        user.line.put("kind")
        user.lab_panel.post_message(ExpressionLine.Checked(Meaning("")))
        await user.until(lambda: user.line.meaning.text == "kind" and not user.line.chosen)
        assert user.lab_panel.setup.layers == str(found.layer)


async def test_a_typed_vector_keeps_the_strength_and_acts_where_it_was_calibrated(calibrated):
    found = calibrated.store.results.calibration("kind")
    async with Session(calibrated) as user:
        strength = user.lab_panel.query_one(Strength)
        before = user.lab_panel.setup.dose
        await user.steer("kind")
        await user.until(lambda: strength.per_unit)  # the lab has heard of it
        assert (user.lab_panel.setup.layers, user.lab_panel.setup.dose) == (
            str(found.layer),
            before,
        )
        assert strength.safe == found.safe
        assert user.lab_panel.query_one("#layers", Input).value == str(found.layer)
        assert "layer" not in str(user.lab_panel.border_title)  # it is said once
        await user.steer("plain")
        await user.until(lambda: user.lab_panel.setup.layers == "")
        assert strength.safe is None


def test_the_overview_says_in_a_line_where_a_vector_works():
    assert "c finds" in in_a_line(None)
    assert in_a_line(Calibration("0" * 64, works=False)) == "calibrated: not shown to work"
    found = Calibration("0" * 64, True, 21, 0.2, 0.714, (-0.1, 0.2))
    assert in_a_line(found) == "calibrated: layer 21 · dose +0.20 · safe -0.10 to +0.20"


async def test_a_layer_that_the_user_chose_stays_and_has_no_band(calibrated):
    found = calibrated.store.results.calibration("kind")
    async with Session(calibrated) as user:
        strength = user.lab_panel.query_one(Strength)
        user.lab_panel.use(replace(user.lab_panel.setup, layers="1"))
        await user.steer("kind")
        await user.until(lambda: strength.per_unit)
        assert user.lab_panel.setup.layers == "1" != str(found.layer)
        assert strength.safe is None


async def test_what_is_chosen_and_written_at_once_is_written_as_calibrated(calibrated):
    found = calibrated.store.results.calibration("kind")
    async with Session(calibrated) as user:
        user.line.put("kind")
        await user.pilot.press("f5")
        await user.until(lambda: user.lab_panel.run is not None)
        assert user.lab_panel.run.layers == str(found.layer)
        assert user.lab_panel.run.generations[1].coefficient == pytest.approx(found.coefficient)


async def test_the_curves_tab_draws_the_dose_response_or_says_how_to_get_it(calibrated):
    async with Session(calibrated) as user:
        user.bench.browser.locate("kind")
        await user.until(
            lambda: any("calibrated: layer" in str(h.render()) for h in user.bench.query("#head"))
        )
        user.bench.action_tab("curves")
        await user.until(lambda: user.bench.query(f"{Curves.__name__} PlotextPlot.response"))
        pane = user.bench.query_one(Curves)
        assert "works: layer" in (said := pane.query_one("#verdict", Static).render().plain)
        assert "\n· range at that point" in said
        await user.until(lambda: len(pane.query(PlotextPlot)) == 3)  # dose, and layers: effect, KL
        titles = [plot.plt.build() for plot in pane.query(PlotextPlot)]
        assert sum("KL at dose" in title for title in titles) == 1
        drawn = pane.query_one(".response", PlotextPlot).plt.build()
        assert "propensity by dose" in drawn
        assert "random" in drawn
        user.bench.browser.locate("plain")
        await user.until(
            lambda: "steerlab calibrate plain" in pane.query_one("#verdict", Static).render().plain
        )
        await user.until(lambda: not pane.query(".response"))


async def test_a_step_to_the_stored_layer_steers_there_and_back_where_it_works(calibrated):
    found = calibrated.store.results.calibration("kind")
    step = -1 if found.layer > 1 else 1
    async with Session(calibrated) as user:
        strength = user.lab_panel.query_one(Strength)
        await choose(user, "kind")
        while user.lab_panel.setup.layers != "1":
            user.lab_panel.settings.action_layer(step)
        await user.pilot.press("f5")
        await user.until(lambda: user.lab_panel.run is not None)
        assert user.lab_panel.run.layers == "1"
        assert strength.safe is None
        user.lab_panel.use(replace(user.lab_panel.setup, layers=""))
        assert user.lab_panel.query_one("#layers", Input).placeholder == str(found.layer)
        assert strength.safe == found.safe


async def test_the_lab_knows_the_calibration_of_the_layer_that_is_chosen(calibrated):
    store = calibrated.store
    beside = replace(store.results.calibration("kind"), layer=1, safe=(-0.05, 0.4), data=None)
    store.results.save_calibration(beside)
    async with Session(calibrated) as user:
        strength = user.lab_panel.query_one(Strength)
        await choose(user, "kind")
        assert user.lab_panel.setup.layers != "1"
        user.lab_panel.use(replace(user.lab_panel.setup, layers="1"))
        assert strength.safe == (-0.05, 0.4)
        head = user.bench.query_one("#head")
        await user.until(lambda: "and layer 1, dose" in str(head.render()))


async def test_a_step_from_an_empty_layer_goes_on_from_where_the_vector_works(calibrated):
    found = calibrated.store.results.calibration("kind")
    async with Session(calibrated) as user:
        await choose(user, "kind")
        user.lab_panel.use(replace(user.lab_panel.setup, layers=""))
        user.lab_panel.settings.action_layer(-1)
        assert user.lab_panel.setup.layers == str(found.layer - 1)


async def test_a_run_keeps_the_layer_at_which_it_was_written(calibrated):
    found = calibrated.store.results.calibration("kind")
    async with Session(calibrated) as user:
        await choose(user, "kind")
        user.lab_panel.use(replace(user.lab_panel.setup, layers=""))
        await user.pilot.press("f5")
        await user.until(lambda: user.lab_panel.run is not None)
        assert user.lab_panel.run.layers == str(found.layer)
