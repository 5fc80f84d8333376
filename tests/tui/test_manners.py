"""Help, quitting and what else every screen does alike."""

import time
from threading import Event

from textual.containers import VerticalScroll

from steerlab import Lab
from steerlab.tui import model_loading
from steerlab.tui.app import QuitDialog
from steerlab.tui.fields import Tick
from steerlab.tui.notices import notify
from steerlab.tui.setup import Setup
from tests.tui.driver import Gate, Session
from tests.tui.hosts import text_of


async def test_help_fits_one_screen_and_scrolls_on_a_smaller_one(lab):
    async with Session(lab, size=(100, 30)) as user:
        await user.pilot.press("question_mark")
        box = user.app.screen.query_one(VerticalScroll)
        assert box.max_scroll_y == 0
        first = [what for _, what in user.app.screen.keys[:3]]
        assert first == ["steer with the vector", "generate texts", "show help and all keys"]
        await user.pilot.resize_terminal(60, 16)
        await user.pilot.press("down", "pagedown")
        assert box.scroll_y > 0


async def test_q_quits_and_asks_while_work_runs(lab):
    gate = Gate(lab)
    async with Session(lab) as user:
        await user.steer("love")
        user.key("ctrl+g")
        await user.until(lambda: gate.passes)
        user.key("q")
        await user.until(lambda: isinstance(user.app.screen, QuitDialog))
        user.key("escape")
        await user.until(lambda: user.app.screen is user.bench)
        user.key("escape")
        await user.until(lambda: "stopping" in str(user.lab_panel.border_subtitle))
        gate.let(1000)
        await user.written()
        user.key("q")
        await user.until(lambda: user.app._exit)


async def test_q_right_after_ctrl_g_asks_too(lab):
    async with Session(lab) as user:
        for key in ("enter", "ctrl+g", "q"):  # the vector is checked first: no thread writes yet
            user.key(key)
        await user.until(lambda: isinstance(user.app.screen, QuitDialog))


async def test_a_first_session_has_a_hint_until_it_generates(lab):
    async with Session(lab, size=(100, 30)) as user:
        assert user.bench.query("#greeting")
        user.lab_panel.use(Setup("love", max_new_tokens=1))
        await user.until(lambda: user.line.meaning.vector)
        await user.pilot.press("ctrl+g")
        await user.written()
        assert not user.bench.query("#greeting")
        await user.pilot.press("down", "ctrl+q")
    async with Session(lab) as user:
        assert not user.bench.query("#greeting")
        await user.until(lambda: user.at == "love")  # the list remembers its place


async def test_an_error_is_shown_once(lab):
    async with Session(lab, size=(120, 30)) as user:
        await user.pilot.press("x")
        screen = user.app.screen
        notify(screen, "short", "error")
        await user.until(lambda: "short" in text_of(screen, "#status"))
        assert user.said == []
        notify(screen, "too long for the line of the status " * 4, "error")
        await user.until(lambda: user.said)


async def test_that_work_stops_is_not_covered_by_how_far_it_is(lab):
    gate = Event()
    async with Session(lab, size=(100, 30)) as user:
        await user.pilot.press("x")
        screen = user.app.screen
        screen.begin(lambda worker: gate.wait(60))
        await user.pilot.press("escape")
        screen.post_status("loading m … 2 s")
        await user.pilot.pause()
        assert text_of(screen, "#status") == "stopping …"
        gate.set()
        await user.until(lambda: not screen.busy)


async def test_that_a_text_stops_is_not_covered_by_how_far_the_model_is(lab, monkeypatch):
    gate, unloaded = Event(), Lab(lab.store)
    monkeypatch.setattr(
        "steerlab.models.language_model.LanguageModel.load",
        lambda *_, **__: gate.wait(60) and lab.model,
    )
    async with Session(unloaded, size=(100, 30)) as user:
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "loading" in str(user.lab_panel.border_subtitle))
        await user.pilot.press("escape")
        user.lab_panel._report("loading m … 2 s")
        await user.pilot.pause()
        assert str(user.lab_panel.border_subtitle) == "stopping once the model is loaded …"
        gate.set()
        await user.written()
        assert "stopped" in str(user.lab_panel.border_subtitle)


async def test_a_tick_looks_ticked_without_colours(lab):
    async with Session(lab, size=(120, 30)) as user:
        await user.pilot.press("x")
        tick = user.app.screen.query_one(Tick)
        assert tick.render().plain.startswith("[ ]")
        tick.value = True
        assert tick.render().plain.startswith("[✓]")


def test_loading_says_how_long_it_takes(monkeypatch):
    said = []
    monkeypatch.setattr(model_loading, "PATIENCE", 1)
    with model_loading._seconds_said("loading m …", said.append) as saying:
        saying("converting …")
        time.sleep(1.2)
    assert said[:2] == ["loading m …", "converting …"]
    assert said[2].startswith("converting … 1 s; a model that is not on disk yet")


async def test_work_that_is_stopped_before_its_thread_begins_ends(lab):
    async with Session(lab, size=(100, 30)) as user:
        await user.pilot.press("x")
        screen = user.app.screen
        screen.begin(lambda worker: None)
        screen.action_leave()
        await user.until(lambda: not screen.busy)
        user.lab_panel.use(Setup("love", max_new_tokens=5))
        user.lab_panel.generate()
        assert user.lab_panel.cancel()
        await user.written()
