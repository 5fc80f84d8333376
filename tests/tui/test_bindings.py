"""Every action has a key that can be typed, is in the palette, and can be reached by mouse."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Iterator

import pytest
from textual.actions import parse
from textual.binding import Binding, BindingsMap
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.geometry import Region
from textual.screen import Screen
from textual.widgets._footer import FooterKey

from steerlab import Lab
from steerlab.core.run import Run
from steerlab.core.sampling import Sampling
from steerlab.tui.detail import Detail
from steerlab.tui.dialogs import Dialog, OptionsDialog
from steerlab.tui.health.screen import HealthScreen
from steerlab.tui.help import SERIES, HelpDialog, Helpful, phrase
from tests.tui.driver import Driver, Session

SCREENS = {  # the keys that lead there from the table
    "workbench": [],
    "sweep": ["w"],
    "extract": ["x"],
    "options": ["ctrl+o"],
    "model": ["m"],
    "rename": ["r"],
    "remove": ["space", "down", "space", "delete"],
    "save": ["enter", "ctrl+s"],
    "help": ["question_mark"],
    "health": ["h"],
    "garbage": ["h", "g"],
    "delete": ["h", "g", "d"],
    "backup": ["h", "b"],
}
EATEN = {
    "ctrl+i": "is Tab",
    "ctrl+m": "is Enter",
    "ctrl+h": "is Backspace in many terminals",
    "ctrl+left_square_bracket": "is Escape",
    "ctrl+a": "screen's prefix",
    "ctrl+b": "tmux's prefix",
    "ctrl+z": "suspends",
    "ctrl+c": "interrupts, or copies",
    "ctrl+backslash": "ends the program",
    "ctrl+enter": "is Enter in many terminals",
    "shift+enter": "is Enter in many terminals",
    "alt+enter": "full screen in Windows Terminal",
    "f1": "the help of many terminals",
    "f10": "the menu of many terminals",
    "f11": "full screen",
}
SHADOWS = {  # a key that means something else where the focus is, as it should
    ("Field", "escape"),  # leaves the field, not what is being written
    ("Runs", "delete"),  # forgets the run under the cursor, not the vector
    *(("Column", str(rating)) for rating in range(1, 6)),  # rate the text, not open a tab
}


@pytest.fixture
def lab(lab: Lab) -> Lab:
    """With a run, and a file that a crash left."""
    love = lab.store.load("love")
    cells = lab.sweep(love, [2], ["hi"], doses=[0.1], max_new_tokens=1)
    lab.store.runs.save(Run.of(cells, "anger", "tiny", sampling=Sampling(max_new_tokens=1)))
    half = lab.store.path / "payloads" / ".tmp-0123"
    half.write_bytes(b"what a crash left")
    os.utime(half, (0, 0))
    return lab


async def opened(user: Driver, name: str) -> Screen[object]:
    """A screen, with everything on it built that can be."""
    if SCREENS[name][:1] == ["enter"]:
        await user.pilot.press("enter")
        await user.until(lambda: user.line.meaning.vector)
    for key in SCREENS[name]:
        if key != "enter":
            await user.pilot.press(key)
            await settled(user.app.screen)
    if name == "workbench":
        for tab in Detail.TABS:
            user.bench.action_tab(tab)
            await user.until(lambda tab=tab: user.bench.query(f"#pane-{tab}"))
        await user.until(lambda: user.bench.query("#kept"))
    else:
        await user.until(lambda: user.app.screen is not user.bench)
    await user.pilot.pause()
    return user.app.screen


async def settled(screen: Screen[object]) -> None:
    """Its keys mean what they will: on the health screen one thing is done at a time."""
    while isinstance(screen, HealthScreen) and screen.busy:
        await asyncio.sleep(0.01)


def own(node: DOMNode) -> list[Binding]:
    """The bindings of a node that were declared here, one a key."""
    declared = [
        binding
        for kind in inspect.getmro(type(node))
        if kind.__module__.startswith("steerlab.")
        for binding in kind.__dict__.get("BINDINGS", ())
    ]
    return list(Binding.make_bindings(declared))


def chains(screen: Screen[object]) -> Iterator[list[tuple[DOMNode, BindingsMap]]]:
    """What can take a key, from the focus outward, with the focus on each widget in turn."""
    for widget in [*screen.focus_chain, None]:
        screen.set_focus(widget)
        yield screen._modal_binding_chain


@pytest.mark.parametrize("name", SCREENS)
async def test_every_action_has_a_key_that_arrives_and_is_in_palette_and_help(
    lab: Lab, name: str
) -> None:
    async with Session(lab, size=(140, 40)) as user:
        screen = await opened(user, name)
        actions: set[str] = set()
        in_help: set[str] = set()
        for chain in chains(screen):
            check_keys(chain)
            titles = [command.title for command in user.app.get_system_commands(screen)]
            for binding in {binding for node, _ in chain for binding in offered(node)}:
                title = user.app.title_of(phrase(binding), screen)
                listed = 0 if binding.system else 1  # which only moves a cursor is not
                assert titles.count(title) == listed, (screen.focused, binding)
                if not binding.system and parse(binding.action)[1] not in SERIES:
                    actions.add(phrase(binding).removesuffix("…"))
            if isinstance(screen, Helpful):
                in_help |= {what for _, what in screen._keys()}
        assert not isinstance(screen, Helpful) or actions <= in_help
        await left_by_mouse(user)


def check_keys(chain: list[tuple[DOMNode, BindingsMap]]) -> None:
    """Each action has a key that reaches the program, and no key has two actions."""
    taken: dict[str, tuple[DOMNode, str]] = {}
    edits: set[str] = set()
    for node, bindings in chain:
        keys: dict[str, list[str]] = {}
        for binding in own(node):
            assert binding.description, (node, binding)
            keys.setdefault(binding.action, []).append(binding.key)
            inner, first = taken.get(binding.key, (node, binding.action))
            deliberate = (type(inner).__name__, binding.key) in SHADOWS
            assert first == binding.action or deliberate, (inner, first, node, binding)
            taken.setdefault(binding.key, (node, binding.action))
            if binding.priority:
                assert binding.key not in edits, f"{binding} takes a key from a text field"
        for action, typed in keys.items():
            assert set(typed) - set(EATEN), f"{node}: {action} has no key but {typed}"
            assert len(typed) == len(set(typed)), f"{node}: {action} has a key twice"
        edits |= bindings.key_to_bindings.keys()


def offered(node: DOMNode) -> Iterator[Binding]:
    """The bindings of a node whose action can be done now."""
    for binding in own(node):
        _, action, parameters = parse(binding.action)
        if node.check_action(action, parameters):
            yield binding


def footer_key(screen: Screen[object], action: str) -> Region:
    """Where the footer has it; empty until it has."""
    keys = [key for key in screen.query(FooterKey) if key.action == action]
    return keys[0].region if keys else Region()


def palette_key(screen: Screen[object]) -> Region:
    return footer_key(screen, "command_palette")


async def left_by_mouse(user: Driver) -> None:
    """A dialog has buttons; a screen has the palette in its footer, which has all the rest."""
    screen = user.app.screen
    if isinstance(screen, Dialog):
        assert screen.query_one("#accept").region in screen.region
        await user.pilot.click("#cancel")
    elif isinstance(screen, HelpDialog):
        await user.pilot.click(screen, offset=(20, 10))
    else:
        await user.until(lambda: palette_key(screen))
        assert palette_key(screen) in screen.region
        return
    await user.until(lambda: user.app.screen is not screen)
    assert not isinstance(user.app.screen, Dialog | HelpDialog)


@pytest.mark.parametrize("name", ["workbench", "health", "sweep", "extract"])
async def test_help_is_there_by_key_palette_and_mouse(lab: Lab, name: str) -> None:
    async with Session(lab, size=(80, 24)) as user:
        screen = await opened(user, name)
        screen.set_focus(None)
        await explained(user, screen, ["question_mark"])
        await explained(user, screen, ["f1"])
        await explained(user, screen, ["ctrl+p", *"help", "down", "enter"])
        await user.until(lambda: footer_key(screen, "help"))
        await user.pilot.click(offset=footer_key(screen, "help").offset)
        await explained(user, screen, [])


async def explained(user: Driver, screen: Screen[object], keys: list[str]) -> None:
    """Once they are pressed, what a screen is for and its keys are shown, and a key leaves that."""
    await user.pilot.press(*keys)
    await user.until(lambda: isinstance(user.app.screen, HelpDialog))
    shown = user.app.screen
    assert str(screen.HELP) in shown.about
    assert ("?", "show help and all keys") in shown.keys
    await user.pilot.press("question_mark")
    await user.until(lambda: user.app.screen is screen)


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (140, 40)])
async def test_the_palette_and_its_commands_can_be_clicked(lab: Lab, size: tuple[int, int]) -> None:
    async with Session(lab, size=size) as user:
        await user.until(lambda: palette_key(user.bench))
        await user.pilot.click(offset=palette_key(user.bench).offset)
        await user.until(lambda: isinstance(user.app.screen, CommandPalette))
        await user.until(lambda: user.app.screen.query_one("CommandList").option_count)
        await user.pilot.press(*"options")
        commands = user.app.screen.query_one("CommandList")
        await user.until(lambda: commands.option_count == 1)
        await user.pilot.pause()
        await user.pilot.click(commands, offset=(5, 1))
        await user.until(lambda: isinstance(user.app.screen, OptionsDialog))
        await user.until(lambda: user.app.screen.query("SelectCurrent #label"))  # all of it
