"""The app: the workbench, the memory between sessions, and notifications."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.filter import LineFilter
from textual.screen import Screen

from steerlab.core.display import printable
from steerlab.core.verb import Verbs, first_values
from steerlab.tui.control_chars import NoControlChars
from steerlab.tui.dialogs import Confirm
from steerlab.tui.help import features, phrase
from steerlab.tui.memory import Memory
from steerlab.tui.notices import Notice
from steerlab.tui.setup import from_memory
from steerlab.tui.workbench.columns import SORTS
from steerlab.tui.workbench.lab_panel import LabPanel
from steerlab.tui.workbench.screen import Workbench

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

_NO_CONTROL_CHARS = NoControlChars()

WORKING = ("write", "work", "starter")
"""Groups of workers that the user started and would lose the work of."""

QUESTION = "Work is still going on: quitting stops it. Texts that are not finished are lost."
_KEYED = ("calibrate", "evaluate", "inspect", "report", "export", "import")
WITH_KEYS = frozenset(("extract", "sweep", "generate", "remove", "rename", "undo", *_KEYED, "tui"))
"""Verbs with a key on the workbench, by which the palette offers them; and this program."""

_OWN = {"Theme": "Change the theme", "Screenshot": "Save a screenshot"}
"""Textual's own commands that are offered; keys and quitting are steerlab's."""


class QuitDialog(Confirm):
    """Asks before work is lost."""

    HEADING = "quit"


class SteerlabApp(App[None]):
    """Browse, compose, steer. The model loads with the first text."""

    TITLE = "steerlab"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "quit", show=False, priority=True, system=True)
    ]

    def __init__(self, lab: Lab, verbs: Verbs) -> None:
        super().__init__()
        self.lab, self.verbs = lab, verbs
        self.memory = Memory.load()
        self.workbench: Workbench | None = None

    def on_mount(self) -> None:
        """Restore the last session."""
        self._end_on_sigterm()
        self.theme = self.memory.theme if self.memory.theme in self.available_themes else _theme()
        remembered = self.memory.of_store(self.lab.store_path)
        if self.lab.source is None and not self.lab.is_loaded:
            self.lab.use(str(remembered["source"]) if remembered.get("source") else None)
        place = str(remembered.get("at") or "")
        self.workbench = Workbench(
            self.lab, from_memory(remembered), greet=not self.memory.greeted, place=place
        )
        self.push_screen(self.workbench)

    def _end_on_sigterm(self) -> None:
        """Restore the terminal at SIGTERM; a second one ends the process at once."""
        loop = asyncio.get_running_loop()

        def end() -> None:
            loop.remove_signal_handler(signal.SIGTERM)
            self.remember()
            self.exit(return_code=128 + signal.SIGTERM)

        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows; another thread
            loop.add_signal_handler(signal.SIGTERM, end)

    @on(Notice)
    def show_notice(self, event: Notice) -> None:
        """Show a line that no screen has shown; errors stay longer."""
        if event.shown:
            return
        timeout = 4 if event.severity == "information" else 10
        text = printable(event.text)
        self.notify(text, severity=event.severity, timeout=timeout, markup=False)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, and one that removes control characters."""
        return [*super().get_line_filters(), _NO_CONTROL_CHARS]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action that has a key, in a verb and a noun; then Textual's own commands."""
        offered: set[str] = set()
        for node, binding in features(screen):
            title = self.title_of(phrase(binding), screen)
            if title not in offered:
                offered.add(title)
                run = partial(self.run_action, binding.action, node)
                yield SystemCommand(title, f"key {self.get_key_display(binding)}", run)
        if screen is self.workbench:
            texts = self.workbench.lab_panel.focus_texts
            yield SystemCommand("Rate the texts", "go to them: 1 to 5 rate one, * the best", texts)
            yield from self._sorts(self.workbench)
            yield from self._forms()
        for command in super().get_system_commands(screen):
            if command.title in _OWN:
                yield command._replace(title=_OWN[command.title])

    def _sorts(self, bench: Workbench) -> Iterable[SystemCommand]:
        """One command for each order of the vectors."""
        for by in SORTS:
            sort = partial(bench.table.sort_by, by)
            yield SystemCommand(f"Sort by {by}", "the order of the vectors", sort)

    def _forms(self) -> Iterable[SystemCommand]:
        """The commands of the command line that have no key."""
        for name, about in self.verbs.summaries.items():
            if name not in WITH_KEYS:
                opened = partial(self.action_verb, name)
                yield SystemCommand(f"{name.capitalize()}…", about, opened)

    def title_of(self, text: str, screen: Screen[Any]) -> str:
        """A phrase as a title; on the workbench "the vector" is the one under the cursor."""
        bench = self.workbench
        if bench is not None and screen is bench and (current := bench.table.current) is not None:
            name = current.ref if current.version > 1 else current.name
            text = re.sub(r"\bthe vector\b", lambda _: name, text)
        return printable(text[:1].upper() + text[1:])

    def action_verb(self, name: str) -> None:
        """Open the form of a command, for the vectors at hand."""
        if self.workbench is None:
            return
        from steerlab.tui.verbs.screen import VerbScreen

        verb = self.verbs.verb(name)
        values = first_values(verb, *self.workbench.at_hand())
        loading = {"source": self.lab.source, **self.lab.options}
        values |= {name: str(value) for name, value in loading.items() if value}
        self.push_screen(VerbScreen(verb, values, self.lab.store_path, loaded=self.lab.is_loaded))

    def action_copy_command(self) -> None:
        """Copy the `steerlab generate` commands for the same texts."""
        if self.workbench is not None:
            setup, verb = self.workbench.lab_panel.setup, self.verbs.verb("generate")
            command = setup.command(verb, self.lab.source)
            self.copy_to_clipboard(command)
            text = printable(command, newlines=True)
            self.notify(text, title="copied", timeout=10, markup=False)

    async def action_quit(self) -> None:
        """Save the session, and quit; ask first while work runs, unless told a second time."""
        working = any(w.group in WORKING and not w.is_finished for w in self.workers)
        about_to = self.workbench is not None and self.workbench.lab_panel.busy
        if (working or about_to) and not isinstance(self.screen, QuitDialog):
            self.push_screen(QuitDialog(QUESTION, "Quit"), self._leave)
        else:
            self._leave(True)

    def _leave(self, sure: bool | None) -> None:
        if sure:
            self.remember()
            self.workers.cancel_all()
            self.exit()

    def _remember_workbench(self) -> None:
        """Keep its setup, its place and whether it has greeted."""
        if self.workbench is None or not self.workbench.is_mounted:
            return
        current = self.workbench.table.current
        kept = {
            **asdict(self.workbench.lab_panel.setup),
            "source": self.lab.source if self.lab.is_named else None,
            "at": current.qualified if current is not None else None,
        }
        self.memory.keep(self.lab.store_path, kept)
        self.memory.greeted |= not self.workbench.greets

    @on(LabPanel.Finished)
    def remember(self) -> None:
        """Save theme and setup for the next session."""
        self.memory.theme = self.theme
        with suppress(NoMatches):  # a text was finished while the app closes: its parts are gone
            self._remember_workbench()
        self.memory.save()


def _theme() -> str:
    """The dark theme, unless COLORFGBG reports a light background."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return "textual-light" if background in ("7", "15") else "textual-dark"
