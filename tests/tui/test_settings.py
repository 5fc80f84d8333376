"""What each column of the next texts has of its own: vector, strength, layer, rating; prompts."""

import pytest

from steerlab.core.run import Run
from steerlab.core.sampling import Sampling
from steerlab.tui.setup import Pin, Setup, setup_of
from steerlab.tui.workbench.prompt import Prompt
from steerlab.tui.workbench.strength import Strength
from steerlab.tui.workbench.texts import Column
from tests.tui.driver import Session

QUICK = {"prompt": "hi", "max_new_tokens": 2}


async def test_columns_have_settings_of_their_own_and_ratings(lab):
    async with Session(lab, size=(140, 40)) as user:
        user.lab_panel.use(Setup("love", dose=0.1, **QUICK))
        await user.until(lambda: user.line.meaning.vector)
        await user.pilot.press("t")
        await user.steer("anger")
        user.lab_panel.use(user.lab_panel.setup.__class__(**{
            **vars(user.lab_panel.setup), "dose": 0.3, "layers": "1",
        }))  # fmt: skip
        await user.until(lambda: "kept: " in str(user.lab_panel.border_title))
        await user.pilot.press("ctrl+g")
        await user.written()
        shown = [str(c.border_title) for c in user.bench.query(Column) if c.display]
        assert shown[0] == "baseline"
        assert shown[1].startswith("love  c ")
        assert shown[1].endswith("dose +0.10")
        assert shown[2].startswith("anger layer 1  c ")
        (run,) = lab.store.runs.list("love")
        assert [(g.expression, g.layers) for g in run.generations] == [
            ("", ""), ("love", ""), ("", ""),
        ]  # fmt: skip
        assert (run.expression, run.layers) == ("anger", "1")
        user.bench.query(Column)[1].focus()
        await user.pilot.press("4")
        assert lab.store.runs.get(run.id).generations[1].rating == 4
        assert str(user.bench.query(Column)[1].border_title).startswith("4/5  love")
        await user.pilot.press("4")
        assert lab.store.runs.get(run.id).generations[1].rating is None
        await user.pilot.press("f2", "T")
        assert user.lab_panel.setup.pinned == ()


def test_a_run_with_several_settings_comes_back_as_its_setup():
    from steerlab.core.run import Generation

    texts = (
        Generation(0.0, 0.0, "a"),
        Generation(1.0, 0.1, "b", expression="love", layers="2"),
        Generation(3.0, 0.3, "c"),
    )
    setup = setup_of(Run("anger", "hi", "m", texts, layers="1", sampling=Sampling()))
    assert setup.pinned == (Pin("love", 0.1, 1.0, "2"),)
    assert (setup.expression, setup.dose, setup.layers) == ("anger", 0.3, "1")
    assert setup.others == setup.pinned
    assert setup.shares == (0.0, 1.0)


async def test_brackets_change_the_layer_and_the_strength_line_says_it(lab):
    async with Session(lab) as user:
        await user.steer("love")
        strength = user.lab_panel.query_one(Strength)
        await user.until(lambda: strength.query_one("#layers").placeholder == "2")
        await user.pilot.press("left_square_bracket")
        assert user.lab_panel.setup.layers == "1"
        assert strength.query_one("#layers").value == "1"
        assert strength.query_one("#coefficient").value == ""  # known when it is made there
        assert strength.chosen[0] is not None  # the dose stays
        await user.pilot.press("right_square_bracket")
        assert user.lab_panel.setup.layers == ""  # its own again
        assert strength.query_one("#coefficient").value
        for _ in range(4):
            await user.pilot.press("left_square_bracket")
        assert user.lab_panel.setup.layers == "0"
        user.lab_panel.use(Setup("love", layers="0:2"))
        await user.pilot.press("right_square_bracket")
        await user.until(lambda: any("several" in said for said in user.said))


async def test_a_list_of_prompts_is_stepped_through(lab, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("one\ntwo\nthree\n")
    async with Session(lab) as user:
        await user.pilot.press("n")
        await user.until(lambda: any("L loads one" in said for said in user.said))
        await user.pilot.press("L")
        user.app.screen.query_one("#text").value = str(tmp_path / "none.txt")
        await user.pilot.press("enter")
        assert user.app.screen is not user.bench  # it says what is wrong
        user.app.screen.query_one("#text").value = str(listed)
        await user.pilot.press("enter")
        prompt = user.bench.query_one(Prompt)
        assert prompt.text == "one"
        for key, text in (("n", "two"), ("n", "three"), ("n", "one"), ("p", "three")):
            await user.pilot.press(key)
            assert prompt.text == text


@pytest.mark.parametrize("pinned", [(), (Pin("love", 0.1, 1.0),)])
def test_the_current_setting_is_no_column_twice(pinned):
    setup = Setup("love", dose=0.1, coefficient=1.0, pinned=pinned)
    assert setup.others == ()
