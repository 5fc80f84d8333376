"""The app: the workbench, the memory between sessions, and notifications."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.actions import parse
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.screen import Screen

from steerlab.core.display import printable
from steerlab.tui.control_chars import NoControlChars
from steerlab.tui.memory import Memory
from steerlab.tui.notices import Notice
from steerlab.tui.setup import from_memory
from steerlab.tui.workbench.lab_panel import LabPanel
from steerlab.tui.workbench.screen import Workbench

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

_NO_CONTROL_CHARS = NoControlChars()


class SteerlabApp(App[None]):
    """Browse, compose, steer. The model loads with the first text."""

    TITLE = "steerlab"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "quit", show=False, priority=True)
    ]

    def __init__(self, lab: Lab, memory: Memory | None = None) -> None:
        super().__init__()
        self.lab = lab
        self.memory = memory if memory is not None else Memory.load()
        self.workbench: Workbench | None = None

    def on_mount(self) -> None:
        """Restore the last session."""
        self.theme = self.memory.theme if self.memory.theme in self.available_themes else _theme()
        remembered = self.memory.of_store(self.lab.store_path)
        if self.lab.source is None and not self.lab.is_loaded:
            self.lab.use(str(remembered["source"]) if remembered.get("source") else None)
        self.workbench = Workbench(self.lab, from_memory(remembered))
        self.push_screen(self.workbench)

    @on(Notice)
    def show_notice(self, event: Notice) -> None:
        """Show a line; errors stay longer."""
        timeout = 4 if event.severity == "information" else 10
        text = printable(event.text)
        self.notify(text, severity=event.severity, timeout=timeout, markup=False)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, and one that removes control characters."""
        return [*super().get_line_filters(), _NO_CONTROL_CHARS]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's commands, and every action that has a key."""
        yield from super().get_system_commands(screen)
        offered: set[str] = set()
        for node in (screen.focused or screen).ancestors_with_self:
            for binding in _bindings(node):
                _, name, parameters = parse(binding.action)
                done = binding.description in offered or node is self
                if done or not node.check_action(name, parameters):
                    continue
                offered.add(binding.description)
                key = self.get_key_display(binding)
                run = partial(self.run_action, binding.action, node)
                yield SystemCommand(binding.description.capitalize(), f"key {key}", run)

    async def action_quit(self) -> None:
        """Save the session, and quit."""
        self.remember()
        self.exit()

    @on(LabPanel.Finished)
    def remember(self) -> None:
        """Save theme and setup for the next session."""
        self.memory.theme = self.theme
        if self.workbench is not None and self.workbench.is_mounted:
            source = self.lab.source if self.lab.is_named else None
            setup = asdict(self.workbench.lab_panel.setup)
            self.memory.keep(self.lab.store_path, {**setup, "source": source})
        self.memory.save()


def _bindings(node: DOMNode) -> Iterable[Binding]:
    """The bindings of steerlab's own classes.

    Unlike a screen's active bindings, they include letters that a focused field takes as text.
    """
    for kind in type(node).__mro__:
        if kind.__module__.startswith("steerlab."):
            yield from Binding.make_bindings(kind.__dict__.get("BINDINGS", ()))


def _theme() -> str:
    """The dark theme, unless COLORFGBG reports a light background."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return "textual-light" if background in ("7", "15") else "textual-dark"
