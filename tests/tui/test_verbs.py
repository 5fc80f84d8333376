"""Every verb of the command line has a form in the terminal UI, and runs there."""

import asyncio
import signal
import sys

import pytest
from textual.widgets import Checkbox, Input, Log, Select, Static

from steerlab.cli.forms import CommandLine
from steerlab.core.verb import Field, Verb
from steerlab.errors import BadOption
from steerlab.progress import ProgressLine
from steerlab.tui.app import WITH_KEYS
from steerlab.tui.verbs import child
from steerlab.tui.verbs.screen import TWICE, VerbScreen
from steerlab.tui.workbench.texts import Texts
from tests.tui.driver import Session
from tests.tui.hosts import text_of

VERBS = CommandLine()
HERE = {  # verbs that are more than a form: what leads to them on the workbench
    "generate": "Generate texts",
    "extract": "Extract a vector from prompts…",
    "sweep": "Sweep layers and doses…",
    "remove": "Delete anger",
    "rename": "Rename anger…",
    "undo": "Undo the last change",
    "import": "Import vectors…",
    "report": "Report on anger…",
}


async def opened(user, name: str) -> VerbScreen:
    user.app.action_verb(name)
    await user.until(lambda: isinstance(user.app.screen, VerbScreen))
    await user.pilot.pause()
    return user.app.screen


def said(screen: VerbScreen) -> str:
    return text_of(screen, "#status")


async def test_every_verb_is_in_the_palette(lab):
    async with Session(lab) as user:
        titles = [command.title for command in user.app.get_system_commands(user.bench)]
        for name in VERBS.summaries:
            vector = " anger" if name in WITH_KEYS else ""
            title = HERE.get(name, f"{name.capitalize()}{vector}…")
            assert titles.count(title) == (0 if name == "tui" else 1), name


@pytest.mark.parametrize("name", [n for n in VERBS.summaries if n != "tui"])
def test_every_verb_takes_the_words_of_its_form(name):
    """Each field filled in and parsed by click: no option is lost, renamed or misread."""
    import click

    from steerlab.cli import cli

    verb = VERBS.verb(name)
    samples = {"flag": True, "text": "1"}
    values = {f.name: f.choices[0] if f.choices else samples[f.kind] for f in verb.fields}
    command = cli.get_command(click.Context(cli), name)
    words = verb.words(values)
    parsed = command.make_parser(click.Context(command)).parse_args(words[1:])[0]
    given = {f.name for f in verb.fields}
    assert given <= parsed.keys()
    assert "1" not in parsed.get("help", ())


def test_words_are_quoted_split_and_checked():
    fields = (
        Field("refs", several=True, required=True),
        Field("prompts", "--prompt", several=True),
        Field("chat", "--chat", kind="flag"),
    )
    verb = Verb("try", "Try.", "Try.", fields)
    assert verb.words({"refs": "-a 'b c'", "prompts": "'I am' you", "chat": True}) == [
        "try", "--prompt=I am", "--prompt=you", "--chat", "--", "-a", "b c",
    ]  # fmt: skip
    with pytest.raises(BadOption, match="refs is missing"):
        verb.words({})
    with pytest.raises(BadOption, match="quote"):
        verb.words({"refs": "'a"})


def test_progress_is_read_from_lines():
    said = ProgressLine("reading\x1bs", 3, 10)
    assert ProgressLine.parsed(f"{said}\n") == said
    for other in ("3 10 reading", "\x1e3 x reading", "\x1e", ""):
        assert ProgressLine.parsed(other) is None


async def test_a_verb_runs_and_its_output_stays(lab):
    async with Session(lab, size=(100, 30)) as user:
        await user.pilot.press("i")
        await user.until(lambda: isinstance(user.app.screen, VerbScreen))
        screen = user.app.screen
        await user.pilot.pause()
        assert screen.query_one("#field-expression", Input).value == "anger"
        screen.query_one("#field-no_model", Checkbox).value = True
        await user.pilot.pause()
        command = str(screen.query_one("#command", Static).render())
        assert command == "$ steerlab inspect --no-model anger"
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "done in" in said(screen))
        assert "love" in "\n".join(screen.query_one(Log).lines)
        await user.pilot.press("escape")
        assert user.app.screen is user.bench


LONG = "for i in range(60): print('x' * (300 if i == 30 else 9), flush=True)"


async def test_output_is_followed_past_a_line_that_is_too_wide(lab, run_instead):
    """The bar that appears below takes a row, which Textual's log takes for scrolling away."""
    run_instead(LONG)
    async with Session(lab) as user:
        screen = await opened(user, "list")
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "done in" in said(screen))
        await user.pilot.pause()
        output = screen.query_one(Log)
        assert output.scroll_offset.y == output.max_scroll_y > 0


@pytest.mark.parametrize(
    ("name", "loaded", "times"), [("check", True, 1), ("check", False, 0), ("list", True, 0)]
)
async def test_a_second_copy_of_the_model_is_said(
    lab, run_instead, monkeypatch, name, loaded, times
):
    run_instead("")
    monkeypatch.setattr(type(lab), "is_loaded", loaded)
    async with Session(lab) as user:
        screen = await opened(user, name)
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "done in" in said(screen))
        assert screen.query_one(Log).lines.count(TWICE) == (loaded and name == "check")


async def test_ratings_are_found_in_the_palette(lab):
    async with Session(lab) as user:
        commands = user.app.get_system_commands(user.bench)
        (rate,) = (command for command in commands if command.title == "Rate the texts")
        rate.callback()
        await user.pilot.pause()
        assert user.app.focused is user.lab_panel.query_one(Texts).columns[-1]


@pytest.fixture
def run_instead(monkeypatch):
    """A Python program that runs in place of every command: it starts in no time."""

    def replace(source: str) -> None:
        monkeypatch.setattr(child, "program", lambda: [sys.executable, "-S", "-c", source])

    return replace


async def test_a_verb_that_fails_says_why_and_can_be_mended(lab, run_instead):
    run_instead("import sys; sys.exit(f'refused: {sys.argv[1:]}')")
    async with Session(lab) as user:
        screen = await opened(user, "list")
        screen.query_one("#field-sort", Select).value = "name"
        screen.query_one("#field-limit", Input).value = "0"
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "failed" in said(screen))
        assert "--limit=0" in screen.query_one(Log).lines[1]


def test_a_command_that_talks_has_ctrl_c_for_itself(run_instead, capfd):
    run_instead("import os, signal, sys; os.kill(os.getppid(), signal.SIGINT)")
    before = signal.getsignal(signal.SIGINT)
    assert child.talk(["chat", "--vector=a b"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert capfd.readouterr().out == "$ steerlab chat '--vector=a b'\n"


def test_what_a_command_that_talks_failed_of_stays_until_enter(run_instead, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    run_instead("import sys; sys.exit(4)")
    assert child.talk(["chat"]) == 4
    assert len(asked) == 1


async def test_a_command_that_talks_is_refused_where_there_is_no_terminal(lab):
    async with Session(lab) as user:
        screen = await opened(user, "chat")
        await user.pilot.press("ctrl+g")
        await user.until(lambda: "needs a terminal" in said(screen))


def test_a_verb_of_a_program_in_the_background_can_be_interrupted(run_instead):
    run_instead("import time; print('waiting', flush=True); time.sleep(60)")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as after `nohup steerlab tui &`
    try:
        running = child.Child(["models"], 80)
    finally:
        signal.signal(signal.SIGINT, before)
    assert next(running.lines()) == "waiting"
    running.interrupt()
    assert running.wait() != 0


async def test_escape_interrupts_a_verb_and_leaving_ends_it(lab, run_instead):
    run_instead("import time; print('\\x1e1 2 waiting …', flush=True); time.sleep(60)")
    async with Session(lab) as user:
        screen = await opened(user, "models")
        await user.pilot.press("ctrl+g")
        await user.until(lambda: said(screen) == "waiting …")
        await user.pilot.press("escape")
        await user.until(lambda: not screen.busy)
        assert "stopped" in said(screen)
        await user.pilot.press("ctrl+g")
        await user.until(lambda: screen.busy)
        process = screen._child.process
        await user.pilot.press("escape", "escape")
        await asyncio.to_thread(process.wait, 10)
