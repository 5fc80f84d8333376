"""The whole terminal UI, driven by keys on a tiny model."""

import json
import threading

import pytest
from textual import events
from textual.widget import Widget
from textual.widgets import Footer, Input, Label, Static, Tab, Tabs
from textual.worker import Worker, active_worker

from steerlab import Lab, Store
from steerlab.cli import run
from steerlab.errors import StoreError
from steerlab.tui.app import QuitDialog
from steerlab.tui.detail import Detail
from steerlab.tui.detail.detail import pane_class
from steerlab.tui.detail.overview import Field, layers
from steerlab.tui.detail.pane import Pane
from steerlab.tui.dialogs import Confirm, OptionsDialog, SaveDialog, TextDialog
from steerlab.tui.expression_line import ExpressionLine
from steerlab.tui.extract.screen import ExtractScreen
from steerlab.tui.health.report import Entry, Report
from steerlab.tui.health.screen import HealthScreen
from steerlab.tui.help import HelpDialog, phrase
from steerlab.tui.notices import reporting_errors
from steerlab.tui.setup import Setup
from steerlab.tui.sweep.screen import SweepScreen
from steerlab.tui.workbench.prompt import Prompt
from steerlab.tui.workbench.screen import Workbench
from steerlab.tui.workbench.strength import Slider
from steerlab.tui.workbench.texts import Column
from tests.tiny import tiny_lm
from tests.tui.driver import PAIRS, SIZES, Gate, Session, delete
from tests.tui.hosts import text_of, until

# from the table to a text


async def test_three_keys_lead_from_the_table_to_a_steered_text(lab):
    async with Session(lab) as user:
        await user.pilot.press("down", "enter")
        assert user.line.text == "love"
        await user.until(lambda: user.line.meaning.vector)
        await user.pilot.press("ctrl+g")
        await user.written()
        baseline, steered = user.texts
        assert baseline.startswith("I think you are a")
        assert steered.startswith("I think you are a")
        assert baseline != steered
        assert "done" in str(user.lab_panel.border_subtitle)


async def test_generate_alone_takes_the_vector_under_the_cursor(lab):
    async with Session(lab) as user:
        await user.pilot.press("f5")
        await user.written()
        assert user.line.text == "anger"
        assert len(user.texts) == 2


async def test_the_texts_are_those_of_the_same_call_in_python(lab):
    from steerlab.core.setting import Setting

    love = lab.store.load("love")
    setting = Setting(love, love.coefficient(0.2))
    cells = lab.compare(["I think you are a"], [Setting(), setting], max_new_tokens=40)
    async with Session(lab) as user:
        await user.steer("love")
        await user.pilot.press("ctrl+g")
        await user.written()
        assert [c.written for c in user.bench.query(Column) if c.display] == [
            cell.text for cell in cells
        ]


@pytest.mark.parametrize(("presses", "expected"), [(1, 3), (2, 5), (3, 2)])
async def test_several_strengths_stand_side_by_side(lab, presses, expected):
    async with Session(lab) as user:
        await user.steer("love")
        await user.pilot.press(*["ctrl+t"] * presses, "ctrl+g")
        await user.written()
        headings = [str(c.border_title) for c in user.bench.query(Column) if c.display]
        assert len(headings) == expected
        place = {2: 0, 3: 1, 5: 2}[expected]
        assert headings[place] == "baseline"


async def test_enter_in_the_prompt_generates_and_keeps_its_lines(lab):
    async with Session(lab) as user:
        await user.steer("love")
        prompt = user.bench.query_one(Prompt)
        prompt.focus()
        prompt.text = "two\nlines [b]x[/b]"
        await user.pilot.press("enter")
        await user.written()
        assert user.texts[0].startswith("two\nlines [b]x[/b]")


async def test_an_empty_prompt_is_refused_in_words(lab):
    async with Session(lab) as user:
        user.bench.query_one(Prompt).text = "  "
        await user.pilot.press("ctrl+g")
        await user.until(lambda: any("no prompt" in said for said in user.said))
        assert not user.lab_panel.busy


async def test_a_very_long_prompt_ends_in_a_text_or_in_one_line(lab):
    async with Session(lab) as user:
        await user.steer("love")
        user.bench.query_one(Prompt).text = "x" * 20_000
        await user.pilot.press("ctrl+g")
        await user.written()
        assert any("tokens" in said for said in user.said)


# stopping


async def test_escape_stops_within_two_tokens_and_the_next_text_is_right(lab):
    gate = Gate(lab)
    async with Session(lab) as user:
        await user.steer("love")
        user.lab_panel.use(Setup("love", max_new_tokens=30))
        user.key("ctrl+g")
        await user.begun(gate)
        before = gate.passes
        user.key("escape")  # a busy machine takes longer to see it than the model for a token
        await user.until(lambda: "stopping" in str(user.lab_panel.border_subtitle))
        gate.let(1000)
        await user.written()
        assert gate.passes - before <= 2
        assert "stopped" in str(user.lab_panel.border_subtitle)
        assert all(not block._forward_pre_hooks for block in lab.model.blocks)
        await user.pilot.press("ctrl+g")
        await user.written()
        again = [c.written for c in user.bench.query(Column) if c.display]
    fresh = Lab(lab.store, tiny_lm())
    async with Session(fresh) as user:
        await user.steer("love")
        user.lab_panel.use(Setup("love", max_new_tokens=30))
        await user.pilot.press("ctrl+g")
        await user.written()
        assert [c.written for c in user.bench.query(Column) if c.display] == again


async def test_a_second_generation_waits_to_be_asked_for_again(lab):
    gate = Gate(lab)
    async with Session(lab) as user:
        await user.steer("love")
        user.key("ctrl+g")
        user.key("ctrl+g")
        await user.until(lambda: any("still generating" in said for said in user.said))
        await user.until(lambda: gate.passes)  # what has not begun ends at once
        user.key("escape")
        await user.until(lambda: "stopping" in str(user.lab_panel.border_subtitle))
        gate.let(1000)
        await user.written()


async def test_quitting_in_mid_generation_leaves_nothing_behind(lab):
    gate = Gate(lab)
    async with Session(lab) as user:
        await user.steer("love")
        user.key("ctrl+g")
        await user.begun(gate)
        user.key("ctrl+q")
        await user.until(lambda: isinstance(user.app.screen, QuitDialog))
        user.key("ctrl+q")  # a second time means it
        await user.until(lambda: not user.app.is_running)
        before = gate.passes
        gate.let(1000)
    assert lab.model.lock.acquire(timeout=60)  # the thread ends with the token it is at
    lab.model.lock.release()
    assert gate.passes - before <= 1
    assert all(not block._forward_pre_hooks for block in lab.model.blocks)


async def test_what_comes_after_the_app_was_told_to_end_is_left(lab):
    """A timer or a thread may be late, and nothing can be mounted any more."""
    async with Session(lab) as user:
        detail, report = user.bench.detail, Report()
        await user.until(lambda: detail.query(Pane))
        await detail.mount(report)
        pane = detail.query(Pane).first()
        user.app.exit()
        detail.switch(detail.TABS[-1])
        detail.reread()
        pane._draw(pane.summary, "nothing that could be drawn")
        report.show([Entry("of", "nothing")])
        assert list(detail.query(Pane)) == [pane]
        assert not report.children


@pytest.mark.parametrize("tab", Detail.TABS)
async def test_what_is_read_while_the_app_closes_is_not_drawn(lab, tab):
    """Textual mounts nothing in a widget that it is about to remove, a tab's parts included."""
    async with Session(lab) as user:
        (summary,) = lab.store.list(name="love")
        pane = pane_class(tab)(lab)
        mounted = user.bench.detail.query_one("#panes").mount(pane)
        pane._pruning = True
        await mounted
        assert not pane.children
        pane.summary = summary
        active_worker.set(worker := Worker(pane, str))
        pane._draw(summary, pane.read(summary, worker))
        await pane.remove()


async def test_a_tab_that_closes_as_its_rows_are_mounted_is_not_drawn(lab):
    """Its own parts are there, those of its rows are not."""
    async with Session(lab) as user:
        (summary,) = lab.store.list(name="love")
        pane = pane_class("overview")(lab)
        await user.bench.detail.query_one("#panes").mount(pane)
        await pane.query(Field).remove()
        pane.summary, pane._pruning = summary, True
        assert pane.children
        active_worker.set(worker := Worker(pane, str))
        pane._draw(summary, pane.read(summary, worker))
        await pane.remove()


def test_a_worker_that_ends_after_the_app_is_silent():
    with reporting_errors(Static()):
        assert Static().app  # a widget outside of any app has none


async def test_a_model_that_breaks_ends_in_one_line(lab, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(lab, "compare", broken)
    async with Session(lab) as user:
        await user.steer("love")
        await user.pilot.press("ctrl+g")
        await user.written()
        await user.until(lambda: any("the disk is on fire" in said for said in user.said))


async def test_a_model_that_fails_to_load_ends_in_one_line(lab, tmp_path):
    nowhere = Lab(lab.store, source=str(tmp_path / "nowhere"))
    async with Session(nowhere) as user:
        await user.steer("love")
        await user.pilot.press("ctrl+g")
        await user.written()
        await user.until(lambda: any("no model directory" in said for said in user.said))


# runs


async def test_runs_are_kept_rated_and_loaded_back(lab):
    async with Session(lab) as user:
        await user.steer("love")
        user.lab_panel.query_one(Slider).focus()
        await user.pilot.pause()
        await user.pilot.press("minus", "ctrl+g")
        await user.written()
        texts = user.texts
        user.bench.query_one("#text-1", Column).focus()
        await user.pilot.press("asterisk")
        await user.until(lambda: lab.store.runs.list()[0].best == 1)
        (run,) = lab.store.runs.list("love")
        assert run.generations[1].dose == pytest.approx(-0.2)
        user.lab_panel.use(Setup("anger", "another prompt"))
        user.lab_panel.replay(run)
        await user.pilot.pause()
        assert user.texts == texts
        assert user.lab_panel.setup.expression == "love"
        assert user.lab_panel.setup.dose == pytest.approx(-0.2)


async def test_a_shows_which_tokens_were_changed_and_the_texts_again(lab):
    async with Session(lab) as user:
        await user.steer("love")
        await user.pilot.press("a")
        assert user.said == ["changed tokens are shown from the next generation on"]
        await user.pilot.press("ctrl+g")
        await user.written()
        baseline, steered = user.texts
        assert baseline.startswith("unsteered: no token was changed\n·I· ·t")
        assert steered.startswith("changed: ")
        assert steered.splitlines()[-1].startswith("█I█ █t")
        user.lab_panel.focus_texts()
        await user.pilot.pause()
        assert user.bench.active_bindings["a"].binding.show  # in the footer
        await user.pilot.press("a")
        assert all(text.startswith("I think you are a") for text in user.texts)
        assert "█" not in "".join(user.texts)
        await user.pilot.press("a")
        user.lab_panel.replay(lab.store.runs.list()[0])  # it was not measured
        await user.pilot.pause()
        assert all(text.startswith("I think you are a") for text in user.texts)


# composing


async def test_a_composition_is_saved_with_name_tags_and_note(lab):
    async with Session(lab) as user:
        await user.steer("love - 0.5*anger")
        await user.pilot.press("ctrl+s")
        await user.until(lambda: isinstance(user.app.screen, SaveDialog))
        dialog = user.app.screen
        assert dialog.query_one("#name", Input).value == "love_minus_0_5_anger"
        dialog.query_one("#name", Input).value = "mix"
        dialog.query_one("#tags", Input).value = "one two"
        dialog.query_one("#note", Input).value = "a note"
        await user.pilot.press("enter")
        await user.listed(3)
    record = lab.store.record("mix")
    assert str(record.recipe) == "= love.v1 - 0.5 * anger.v1"
    assert (record.tags, record.note) == (("one", "two"), "a note")


async def test_warnings_come_before_saving(lab):
    async with Session(lab) as user:
        await user.steer("love - 1.0001*love + 0*anger")
        await user.pilot.press("ctrl+s")
        await user.until(lambda: isinstance(user.app.screen, SaveDialog))
        warnings = [str(w.render()) for w in user.app.screen.query(".warning")]
        assert any("cancel" in warning for warning in warnings)
        about = user.app.screen.query(".about").first(Static)
        assert str(about.render()).startswith("love - 1.0001*love + 0*anger\nnorm ")
        await user.pilot.press("escape")
        await user.pilot.pause()
    assert len(lab.store.list()) == 2


async def test_a_bad_name_keeps_the_dialog_open_and_says_why(lab):
    async with Session(lab) as user:
        await user.steer("2*love")
        await user.until(lambda: user.line.suggester.names)  # read in a thread
        await user.pilot.press("ctrl+s")
        await user.until(lambda: isinstance(user.app.screen, SaveDialog))
        user.app.screen.query_one("#name", Input).value = "not a name"
        await user.pilot.press("enter")
        assert "identifiers" in text_of(user.app.screen, ".problem")
        user.app.screen.query_one("#name", Input).value = "love"
        await user.until(lambda: "next version" in text_of(user.app.screen, "#taken"))


async def test_nothing_is_saved_of_what_is_no_expression(lab):
    async with Session(lab) as user:
        await user.steer("love -")
        await user.pilot.press("ctrl+s")
        await user.until(lambda: user.said)
        assert user.app.screen is user.bench


async def test_a_save_that_has_to_wait_says_so(lab):
    async with Session(lab) as user:
        await user.steer("love - 0.5*anger")
        await user.pilot.press("ctrl+s")
        await user.until(lambda: isinstance(user.app.screen, SaveDialog))
        with Store(lab.store.path)._database.locked():
            await user.pilot.press("enter")
            await user.until(lambda: any("saving love_minus" in said for said in user.said))
        await user.listed(3)


async def test_saving_a_vector_as_it_is_makes_no_second_version(lab):
    async with Session(lab) as user:
        await user.steer("love")
        await user.pilot.press("ctrl+s")
        await user.until(lambda: isinstance(user.app.screen, SaveDialog))
        await user.pilot.press("enter")
        await user.until(lambda: any("already" in said for said in user.said))
    assert len(lab.store.list(every_version=True)) == 2


async def test_enter_completes_an_open_operator_and_marks_make_a_sum(lab):
    async with Session(lab) as user:
        await user.steer("2*love -")
        await user.pilot.press("enter")
        await user.until(lambda: user.line.text == "2*love - anger")
        await user.pilot.press("home", "space", "down", "space", "enter")
        await user.until(lambda: user.line.text == "anger + love")


# the store


async def test_keys_that_come_in_a_burst_reach_the_filter_in_order(lab):
    async with Session(lab) as user:
        for key, letter in (("slash", "/"), *((c, c) for c in "anger"), ("slash", "/")):
            user.app.post_message(events.Key(key, letter))
        await until(user.pilot, lambda: user.bench.browser.filter.value == "anger/")


async def test_typing_in_the_filter_narrows_the_table_and_escape_clears_it(lab):
    async with Session(lab) as user:
        await user.pilot.press("slash", *"mrkp")
        await user.listed(0)
        await user.pilot.press(*["backspace"] * 4, *"markup")
        await user.listed(1)
        await user.pilot.press("enter")
        assert user.app.focused is user.bench.table
        await user.pilot.press("escape")
        await user.listed(2)


async def test_the_end_of_a_long_filter_stays_in_view_though_nothing_is_laid_out_anew(lab):
    async with Session(lab) as user:
        box = user.bench.browser.filter
        laid_out = user.bench.table.region
        await user.pilot.press("slash")
        box.insert_text_at_cursor("markup " * 12 + "end")
        await user.until(lambda: "end" in user.screenshot)
        await user.pilot.press("home")
        await user.until(lambda: "end" not in box.render_line(0).text)
        assert box.render_line(0).text.startswith("markup markup")
        assert user.bench.table.region == laid_out


async def test_the_best_match_of_the_filter_is_under_the_cursor(lab):
    lab.extract("lovely", PAIRS[:1], layers=2)
    async with Session(lab, count=3) as user:
        await user.pilot.press("end")
        await user.until(lambda: user.at == "lovely")
        await user.pilot.press("slash", *"lov", "enter", "enter")
        await user.until(lambda: user.line.text == "love")
        await user.pilot.press("escape", "escape")
        await user.listed(3)
        assert user.at == "love"


async def test_the_table_follows_what_another_process_stores(lab):
    async with Session(lab) as user:
        other = Store(lab.store.path)
        other.save("joy", lab.store.load("love") * 2)
        await user.listed(3)
        await user.until(lambda: "joy" in user.line.suggester.names)


async def test_the_table_names_the_models_if_vectors_have_several(lab):
    async with Session(lab, size=(200, 60)) as user:
        table = user.bench.table
        assert "model" not in table.render_line(0).text.split()
        Lab(lab.store, tiny_lm(seed=1)).extract("joy", PAIRS, layers=2)
        await user.until(lambda: "model" in table.render_line(0).text.split())


async def test_the_details_of_the_first_vector_are_there_from_the_start(lab):
    async with Session(lab) as user:
        await user.until(lambda: "anger" in str(user.bench.detail.border_title))
        await user.until(lambda: "2 contrast pairs" in user.screenshot)


async def test_a_store_that_disappears_leaves_the_app_alive(lab):
    async with Session(lab) as user:
        delete(lab.store.path)
        await user.listed(0)
        await user.pilot.press("ctrl+g")
        await user.written()
        assert user.app.screen is user.bench


async def test_a_damaged_payload_is_said_and_the_rest_works(lab):
    files = sorted(lab.store.path.glob("payloads/*/*.safetensors"))
    digest = lab.store.record("love").digest
    (hurt,) = [f for f in files if digest[:8] in f.name]
    hurt.write_bytes(hurt.read_bytes()[:-7])
    async with Session(lab) as user:
        await user.pilot.press("down")
        await user.until(lambda: user.bench.table._damaged)
        await user.pilot.press("enter", "ctrl+g")
        await user.written()
        assert any(hurt.name in said for said in user.said), user.said
        await user.steer("anger")
        await user.pilot.press("ctrl+g")
        await user.written()
        assert len(user.texts) == 2


async def test_an_empty_store_says_what_to_do(tmp_path):
    async with Session(Lab(Store(tmp_path / "empty"), tiny_lm()), count=0) as user:
        await user.until(
            lambda: "extract one" in user.app.export_screenshot().replace("&#160;", " ")
        )


async def test_vectors_are_renamed_and_removed(lab):
    async with Session(lab) as user:
        await user.pilot.press("r")
        user.app.screen.query_one("#text", Input).value = "fury"
        await user.pilot.press("enter")
        await user.until(lambda: "fury" in lab.store.names())
        await user.until(lambda: user.at == "fury")
        await user.pilot.press("delete")
        await user.listed(1)
        assert list(lab.store.names()) == ["love"]
        await user.pilot.press("z")
        await user.listed(2)
        assert list(lab.store.names()) == ["fury", "love"]
        await user.pilot.press("z")
        await user.until(lambda: "anger" in lab.store.names())  # the new name, too
        await user.pilot.press("z")
        await user.until(lambda: user.app._notifications)


async def test_the_details_of_a_removed_vector_are_no_error(lab):
    async with Session(lab) as user:
        await user.until(lambda: user.bench.detail.summary is not None)
        lab.store.remove([user.bench.detail.summary.qualified])
        user.bench.detail.reread()
        await user.pilot.pause(0.3)
        assert not any("no vector called" in said for said in user.said)


def test_the_figures_of_several_layers_fit_a_narrow_pane(lab):
    lab.extract("wide", PAIRS, layers=[1, 2])
    lines = [line.plain for line in layers(lab.store.record("wide"))]
    assert lines[0].split() == ["pairwise"]
    assert lines[1].split()[:4] == ["layer", "norm", "residual", "dose/c"]
    assert max(map(len, lines)) <= 66  # of a terminal of 120 columns
    assert len(set(map(len, lines))) == 1


async def test_several_vectors_are_removed_after_a_question(lab):
    async with Session(lab) as user:
        await user.pilot.press("space", "down", "space", "delete")
        assert isinstance(user.app.screen, Confirm)
        await user.pilot.press("escape", "delete")
        assert isinstance(user.app.screen, Confirm)
        user.app.screen.query_one("#accept").focus()
        await user.pilot.press("enter")
        await user.listed(0)
        await user.pilot.press("z")
        await user.listed(2)


async def test_a_vector_that_others_are_made_from_is_not_removed(lab):
    lab.store.save("mix", lab.store.evaluate("love + anger"))
    async with Session(lab, count=3) as user:
        await user.pilot.press("delete")
        await user.until(lambda: any("made from it" in said for said in user.said))
        assert len(lab.store.names()) == 3


async def test_notes_and_names_are_shown_as_text(lab):
    async with Session(lab, size=(160, 50)) as user:
        await user.pilot.press("down")
        await user.until(lambda: "[bold]not" in user.app.export_screenshot())
        assert "\x1b" not in user.app.export_screenshot()


# options, help, palette, memory


async def test_options_reach_the_generation(lab):
    async with Session(lab) as user:
        await user.steer("love")
        await user.pilot.press("ctrl+o")
        dialog = user.app.screen
        assert isinstance(dialog, OptionsDialog)
        dialog.query_one("#max_new_tokens", Input).value = "three"
        await user.pilot.press("enter")
        assert "whole number" in text_of(dialog, ".problem")
        dialog.query_one("#max_new_tokens", Input).value = "3"
        dialog.query_one("#layers", Input).value = "1"
        await user.pilot.press("enter", "ctrl+g")
        await user.written()
        (run,) = lab.store.runs.list()
        assert (run.sampling.max_new_tokens, run.layers) == (3, "1")
        assert "3 tokens" in str(user.lab_panel.border_title)


@pytest.mark.parametrize("layers", ["99", "x", "3:1"])
async def test_layers_that_cannot_be_are_one_line(lab, layers):
    async with Session(lab) as user:
        user.lab_panel.use(Setup("love", layers=layers))
        await user.steer("love")
        await user.pilot.press("ctrl+g")
        await user.written()
        assert any("layer" in said for said in user.said)


async def test_the_command_that_is_copied_writes_the_same_texts(lab, tmp_path, capsys):
    from tests.saved import save_model

    model = save_model(tmp_path / "model")
    from steerlab import LanguageModel

    saved = Lab(Store(tmp_path / "other"), LanguageModel.load(str(model)))
    saved.extract("love", PAIRS, layers=2)
    async with Session(saved, count=1) as user:
        user.lab_panel.use(
            user.lab_panel.setup.__class__("love", "hi", 0.3, max_new_tokens=5, columns=3)
        )
        await user.until(lambda: user.line.meaning.vector)
        await user.pilot.press("f2", "y")
        await user.until(lambda: user.app.clipboard)
        await user.pilot.press("ctrl+g")
        await user.written()
        texts = [c.written for c in user.bench.query(Column) if c.display]
    import shlex

    words = shlex.split(user.app.clipboard)
    code = run([*words[1:-2], "--json", "--store", str(saved.store.path), *words[-2:]])
    assert code == 0
    cells = {round(c["dose"], 6): c["text"] for c in json.loads(capsys.readouterr().out)}
    assert [cells[d] for d in (-0.3, 0.0, 0.3)] == texts


async def test_help_explains_the_focused_region(lab):
    async with Session(lab) as user:
        await user.pilot.press("question_mark")
        assert isinstance(user.app.screen, HelpDialog)
        assert "One vector per line" in user.app.screen.about
        await user.pilot.press("escape")
        user.lab_panel.query_one(Slider).focus()
        await user.pilot.press("f1")
        assert "The strength of" in user.app.screen.about


async def test_a_question_mark_can_be_typed(lab):
    async with Session(lab) as user:
        prompt = user.bench.query_one(Prompt)
        prompt.focus()
        prompt.text = ""
        await user.pilot.press("x", "question_mark", "w", "slash")
        assert prompt.text == "x?w/"


async def test_every_action_is_in_the_palette(lab):
    async with Session(lab) as user:
        titles = {c.title for c in user.app.get_system_commands(user.app.screen)}
        for binding in Workbench.BINDINGS:
            assert user.app.title_of(phrase(binding), user.bench) in titles
        assert {
            "Delete anger",
            "Rename anger…",
            "Quit steerlab",
            "Sweep layers and doses…",
            "Sort by norm",
        } <= titles
        assert not {"Page up", "Down", "Much stronger", "Keys"} & titles


async def test_the_session_is_remembered(lab):
    async with Session(lab) as user:
        await user.steer("love - anger")
        user.bench.query_one(Prompt).text = "remembered"
        user.app.theme = "nord"
        await user.pilot.press("ctrl+q")
    async with Session(lab) as user:
        assert user.line.text == "love - anger"
        assert user.lab_panel.setup.prompt == "remembered"
        assert user.app.theme == "nord"


async def test_another_model_is_chosen(lab):
    async with Session(lab) as user:
        await user.pilot.press("m")
        assert isinstance(user.app.screen, TextDialog)
        user.app.screen.query_one("#text", Input).value = "some/model"
        await user.pilot.press("enter")
        await user.pilot.pause()
        assert lab.source == "some/model"
        assert not lab.is_loaded


async def test_other_screens_open_and_close(lab):
    async with Session(lab) as user:
        for key, kind in (("x", ExtractScreen), ("w", SweepScreen), ("h", HealthScreen)):
            await user.pilot.press(key)
            await user.until(lambda kind=kind: isinstance(user.app.screen, kind))
            await user.pilot.press("escape")
            await user.until(lambda: user.app.screen is user.bench)


async def test_a_name_that_was_extracted_is_gone_to(lab):
    async with Session(lab) as user:
        lab.extract("zeal", PAIRS, layers=2)
        user.line.post_message(ExpressionLine.Saved("zeal", "stored"))
        await user.until(lambda: user.at == "zeal")


async def test_a_name_found_before_it_is_listed_is_gone_to(lab, monkeypatch):
    async with Session(lab) as user:
        lab.extract("zeal", PAIRS, layers=2)
        located, matching = threading.Event(), lab.store.listing.matching
        go_to = user.bench.table.go_to

        def slowly(*args, **kwargs):
            assert located.wait(10)
            return matching(*args, **kwargs)

        def going_to(row):
            located.set()
            return go_to(row)

        monkeypatch.setattr(lab.store.listing, "matching", slowly)
        monkeypatch.setattr(user.bench.table, "go_to", going_to)
        user.line.post_message(ExpressionLine.Saved("zeal", "stored"))
        await user.until(lambda: user.at == "zeal")


# sizes


@pytest.mark.parametrize("size", SIZES)
async def test_no_control_is_clipped(lab, size):
    async with Session(lab, size=size) as user:
        for region in ("table", "lab", "detail"):
            user.bench.action_go(region)
            await user.pilot.pause()
            width, height = size
            for widget in user.bench.walk_children():
                if widget.display and widget.region and widget.is_on_screen:
                    visible = widget.region
                    scrolls = any(
                        a.is_scrollable
                        for a in widget.ancestors
                        if isinstance(a, Widget) and a is not user.bench
                    )
                    if not scrolls:
                        assert visible.right <= width, widget
                        assert visible.bottom <= height, widget


@pytest.mark.parametrize("size", [size for size in SIZES if size[0] >= 80])
async def test_every_tab_is_in_sight(lab, size):
    async with Session(lab, size=size) as user:
        await user.until(lambda: "anger" in str(user.bench.detail.border_title))
        tabs = user.bench.detail.query_one(Tabs)
        assert max(tab.region.right for tab in tabs.query(Tab)) <= tabs.region.right


async def test_no_label_of_the_options_is_cut(lab):
    async with Session(lab, size=(80, 24)) as user:
        await user.pilot.press("ctrl+o")
        await user.until(lambda: user.app.screen.query(Label))
        await user.pilot.pause()
        for label in user.app.screen.query(Label):
            assert len(str(label.render())) < label.size.width


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 40)])
async def test_no_key_in_the_footer_is_cut(lab, size):
    async with Session(lab, size=size) as user:
        keys = user.bench.query_one(Footer).query("FooterKey")
        await user.until(lambda: "palette" in user.screenshot)
        await user.until(lambda: "sweep" in user.screenshot)
        *others, palette = sorted((key.region for key in keys.results()), key=lambda r: r.right)
        for key in others:  # a space at its end may be covered; a whole key may be out of sight
            assert key.right - 1 <= palette.x or key.x + 1 >= palette.x


@pytest.mark.parametrize("size", SIZES)
async def test_a_text_can_be_made_at_any_size(lab, size):
    async with Session(lab, size=size) as user:
        await user.pilot.press("down", "enter", "ctrl+g")
        await user.written()
        assert all(text.startswith("I think you are a") for text in user.texts)
        assert "I think you are a" in user.screenshot


async def test_resizing_loses_no_state(lab):
    async with Session(lab, size=(140, 40)) as user:
        await user.steer("love - anger")
        user.bench.query_one(Prompt).text = "kept"
        await user.pilot.press("down")
        for size in ((40, 10), (80, 24), (200, 60), (140, 40)):
            await user.pilot.resize_terminal(*size)
            await user.pilot.pause()
        assert user.lab_panel.setup.expression == "love - anger"
        assert user.lab_panel.setup.prompt == "kept"
        assert user.at == "love"


async def test_what_a_details_worker_has_to_say_is_shown(lab, monkeypatch):
    def broken(*args, **options):
        raise StoreError("the disk is on fire")

    async with Session(lab) as user:
        monkeypatch.setattr(lab.store, "similar", broken)
        await user.pilot.press("4")
        await user.until(lambda: any("on fire" in said for said in user.said))
