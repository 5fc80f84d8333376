"""The Tokens tab: nothing is loaded by looking; Enter loads, and shows what the lens says."""

import pytest
from textual.widgets import Button

from steerlab import Lab, Store
from steerlab.evaluation.inspection.logit_lens import logit_lens
from steerlab.tui.detail.tokens import Tokens
from tests.saved import save_model
from tests.tiny import tiny_lm
from tests.tui.driver import PAIRS, Session
from tests.tui.hosts import text_of

SIZE = (120, 40)


@pytest.fixture
def lab(tmp_path):
    """A lab whose model is on disk, and not loaded."""
    from steerlab import LanguageModel

    directory = save_model(tmp_path / "tiny")
    made = Lab(Store(tmp_path / "store"), LanguageModel.load(str(directory)))
    made.extract("love", PAIRS, layers=2)
    made.extract("deep", PAIRS, layers="all")
    return Lab(made.store)


async def opened(user) -> Tokens:
    user.bench.action_tab("tokens")
    await user.until(lambda: user.bench.query("Tokens #tokens"))
    pane = user.bench.query_one(Tokens)
    await user.until(lambda: text_of(pane, "#tokens"))
    return pane


async def pressed(user, pane) -> None:
    """A click on the button; again if the text above it moved it away meanwhile."""
    button, said = pane.query_one(Button), len(user.said)
    while pane.waits and not pane.progress and len(user.said) == said:
        await user.until(lambda: button.display and button.region.area)
        await user.pilot.pause()
        await user.pilot.click("#load")


async def test_moving_the_cursor_loads_no_model_and_enter_does(lab):
    async with Session(lab, size=SIZE) as user:
        pane = await opened(user)
        assert "not loaded" in text_of(pane, "#tokens")
        await user.pilot.press("down", "up", "down")
        await user.until(lambda: user.at == "love" and pane.summary.name == "love")
        assert "Enter" in text_of(pane, "#tokens")
        assert not lab.is_loaded
        await user.pilot.press("f3", "enter")
        await user.until(lambda: "suppressed" in text_of(pane, "#tokens"))
        assert not pane.query_one(Button).display
        (lens,) = logit_lens(lab.model, lab.store.load("love"), top=10)
        shown = text_of(pane, "#tokens")
        assert "promoted, layer 2" in shown
        for token in (*lens.promoted, *lens.suppressed):
            assert f"{token.text:<15} {token.logit:+7.1f}" in shown
        assert f"±{lens.chance:.1f}" in shown


async def test_with_a_loaded_model_the_tokens_follow_the_cursor(lab):
    lab.load(lab.store.load("love"))
    async with Session(lab, size=SIZE) as user:
        pane = await opened(user)
        await user.until(lambda: "layer 3\n+ " in text_of(pane, "#tokens"))  # deep: a line a layer
        assert text_of(pane, "#tokens").count("− ") == 4
        await user.pilot.press("down")
        await user.until(lambda: "promoted, layer 2" in text_of(pane, "#tokens"))


async def test_the_button_loads_too_and_a_model_that_is_gone_is_one_line(lab, tmp_path):
    (tmp_path / "tiny").rename(tmp_path / "moved")
    async with Session(lab, size=SIZE) as user:
        pane = await opened(user)
        await pressed(user, pane)
        await user.until(lambda: any("no model directory" in said for said in user.said))
        await user.until(lambda: "Enter" in text_of(pane, "#tokens"))
        (tmp_path / "moved").rename(tmp_path / "tiny")
        await pressed(user, pane)
        await user.until(lambda: "±" in text_of(pane, "#tokens"))


async def test_the_first_text_that_is_written_brings_the_tokens_too(lab):
    async with Session(lab, size=SIZE) as user:
        pane = await opened(user)
        await user.steer("love")
        await user.pilot.press("ctrl+g")
        await user.written()
        await user.until(lambda: "±" in text_of(pane, "#tokens"))


async def test_another_models_vector_keeps_its_invitation(lab):
    lab = Lab(lab.store, tiny_lm(seed=1))
    async with Session(lab, size=SIZE) as user:
        pane = await opened(user)
        assert "not loaded" in text_of(pane, "#tokens")
        await user.pilot.press("f3", "enter")
        await user.until(lambda: any("other weights" in said for said in user.said))
        await user.until(lambda: "Enter" in text_of(pane, "#tokens"))
