"""A screen for any verb: its form, then what the command prints, while it runs and after."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.widgets import Button, Input, Log
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.core.verb import Value, Verb
from steerlab.progress import ProgressLine
from steerlab.tui.footer import KeyFooter
from steerlab.tui.help import HELP_KEY
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.verbs.child import CANCELLED, Child, talk
from steerlab.tui.verbs.form import VerbForm
from steerlab.tui.work_screen import WorkScreen

TWICE = "a model that it needs is loaded again, beside the one here: that takes memory for both"

LINES = 10_000
"""Lines of output that are kept."""


class VerbScreen(WorkScreen[None]):
    """Runs one verb on a store, in a process of its own, as often as wanted.

    values: what the fields begin with. loaded: whether the app holds a model.
    """

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012 - as Textual declares it
    DEFAULT_CSS = """
    VerbScreen VerbForm { height: 1fr; border: round $panel; padding: 0 1; }
    VerbScreen VerbForm { border-title-color: $text-accent; border-subtitle-color: $text-muted; }
    VerbScreen VerbForm:focus-within { border: round $accent; }
    VerbScreen Log { height: 1fr; border: round $panel; padding: 0 1; }
    VerbScreen Log { overflow: auto; background: transparent; }
    VerbScreen Log { border-title-color: $text-accent; scrollbar-size: 1 1; }
    VerbScreen Log:focus { border: round $accent; }
    VerbScreen.-ran Log { height: 2fr; }
    VerbScreen #go { min-width: 11; margin-right: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "run", "run", key_display="^g", tooltip="run the command"),
        HELP_KEY,
        Binding("ctrl+y", "copy", "copy", tooltip="copy the command"),
        Binding("escape", "leave", "stop / back", tooltip="stop, or go back"),
    ]

    def __init__(
        self, verb: Verb, values: Mapping[str, Value], store: Path, *, loaded: bool = False
    ) -> None:
        super().__init__()
        self.verb, self.values, self.store = verb, values, store
        self._twice = loaded and any(field.loads for field in verb.fields)
        self._child: Child | None = None
        self._begun = 0.0

    def compose(self) -> ComposeResult:
        """The form, the output, the button and the status."""
        form = VerbForm(self.verb, self.values)
        form.border_title, form.border_subtitle = self.verb.name, self.verb.about.rstrip(".")
        yield form
        output = Log(max_lines=LINES, id="output")
        output.border_title = "output"
        yield output
        yield from self.state(Button("Run", variant="primary", compact=True, id="go"))
        yield KeyFooter()

    @property
    def explanation(self) -> str:
        """The help of the command."""
        return f"{self.verb.text}\n\nctrl+g runs it, Esc stops it or goes back."

    def on_unmount(self) -> None:
        """End what runs: the app may quit."""
        if self._child is not None:
            self._child.end()

    def action_copy(self) -> None:
        """Copy the command line."""
        with reporting_errors(self):
            command = shlex.join(["steerlab", *self.query_one(VerbForm).words()])
            self.app.copy_to_clipboard(command)
            notify(self, f"copied: {command}")

    @on(Input.Submitted)
    @on(Button.Pressed, "#go")
    def action_run(self) -> None:
        """Run the command."""
        if self.busy:
            return
        with reporting_errors(self):
            words = self.query_one(VerbForm).words()
            if self.verb.interactive:
                self._talk(words)
                return
            output = self.query_one(Log)
            output.clear()
            output.write_line(printable(f"$ steerlab {shlex.join(words)}"))
            if self._twice:
                output.write_line(TWICE)
            output.focus()
            output.anchor()  # Textual's own following ends where a bar that appears takes a row
            self.add_class("-ran")
            self._say("running …")
            self._begun = time.monotonic()
            self._child = child = Child(self._placed(words), max(40, output.size.width - 2))
            self.begin(lambda worker: self._follow(child, worker))

    def _placed(self, words: Sequence[str]) -> list[str]:
        """The words with the store that is open here."""
        store = [f"--store={self.store}"] if self.verb.has_store else []
        return [words[0], *store, *words[1:]]

    def _talk(self, words: Sequence[str]) -> None:
        """Leave the terminal to the command until it ends."""
        try:
            with self.app.suspend():
                code = talk(self._placed(words))
            self._say("failed" if code else "ended", problem=bool(code))
        except SuspendNotSupported:
            notify(self, f"{self.verb.name} needs a terminal: run it in one", "error")

    def _follow(self, child: Child, worker: Worker[None]) -> int:
        """Show what the command writes, until it ends; its exit code."""
        for line in child.lines():
            if isinstance(line, ProgressLine):
                label = line.label.removesuffix(" …")
                self.post_progress(line.done, line.total, f"{label} …")
            else:
                self.call_later(self._write, line)
        return child.wait()

    def _write(self, line: str) -> None:
        self.query_one(Log).write_line(printable(line))

    def ended(self, result: int | None, *, stopped: bool) -> None:
        """Say how it ended."""
        seconds = time.monotonic() - self._begun
        self._child = None
        if result == 0:
            self._say(f"done in {seconds:.1f} s")
        elif stopped or result == CANCELLED:
            self._say("stopped", problem=True)
        else:
            self._say("failed: the last line says why", problem=True)

    def action_leave(self) -> None:
        """Stop the command; when nothing runs, or at the second time, go back."""
        if self._child is not None:
            self._child.interrupt() if self._can_stop() else self._child.end()
        super().action_leave()
